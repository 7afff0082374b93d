// Runs the chosen parts of the suite, and ours, against one site: node client.mjs SUITE BASE IDS.
// SUITE: the folder of http-cache-tests; IDS: a JSON list of ids, of test sets or of single tests.
import process from 'node:process'
import { pathToFileURL } from 'node:url'

import revalidate from './stale_while_revalidate.mjs'

const [suite, base, wanted] = process.argv.slice(2)
const load = path => import(pathToFileURL(`${suite}/${path}`))
const { default: sets } = await load('tests/index.mjs')
const { runTests, getResults } = await load('client/runner.mjs')
const { default: fetch } = await load('../node-fetch/lib/index.js')

const ids = JSON.parse(wanted)
const chosen = [...sets, revalidate]
  .map(set => ({ ...set, tests: set.tests.filter(test => ids.includes(set.id) || ids.includes(test.id)) }))
  .filter(set => set.tests.length > 0)

await runTests(chosen, fetch, false, base)
const results = getResults()
const told = {}
for (const set of chosen) {
  for (const test of set.tests) {
    if (test.id in results) {
      told[test.id] = { set: set.id, kind: test.kind ?? 'required', name: test.name, result: results[test.id] }
    }
  }
}
console.log(JSON.stringify(told))
