import { cp } from "node:fs/promises"
import { defineConfig } from "rolldown"

const bundle = "apps/spegel/bundle"
/** Libraries that are no JavaScript, for this machine's kind. */
const native = "node_modules/@koromix"

/** One ESM file that runs with Node alone; what is imported on demand, and what threads run, is beside it. */
export default defineConfig({
  input: { main: "apps/spegel/src/main.ts", MoverThread: "packages/transfer/src/internal/mover/MoverThread.ts" },
  platform: "node",
  plugins: [{ name: "native libraries", writeBundle: () => cp(native, `${bundle}/${native}`, { recursive: true }) }],
  resolve: {
    // ES modules where a package has both kinds: what is not used of a CommonJS module stays in the bundle.
    conditionNames: ["@spegel-ts/source", "module", "node", "import", "default"],
    mainFields: ["module", "main"]
  },
  output: {
    dir: bundle,
    format: "esm",
    cleanDir: true,
    sourcemap: false,
    minify: { compress: true, mangle: false, codegen: { removeWhitespace: true } }
  }
})
