// Preloaded into the suite's server, which would listen on every interface: 127.0.0.1, a free port.
'use strict'
const { Server } = require('net')
const listen = Server.prototype.listen
Server.prototype.listen = function () {
  return listen.call(this, { host: '127.0.0.1', port: 0 })
}
