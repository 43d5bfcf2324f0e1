// Reads an AsyncAPI document from standard input with the official parser, prints what it finds,
// and fails if anything is an error or a warning.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { Parser } = createRequire(process.argv[2] + "/")("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
for (const d of diagnostics) console.error(`${d.path.join(".")}: ${d.message}`);
if (!document || diagnostics.some((d) => d.severity <= 1)) process.exit(1);
console.log(`valid: AsyncAPI ${document.version()}, ${document.operations().length} operations`);
