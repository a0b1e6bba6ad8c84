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
  resolve: { conditionNames: ["@spegel-ts/source", "node", "import", "default"] },
  output: {
    dir: bundle,
    format: "esm",
    cleanDir: true,
    sourcemap: false,
    minify: { compress: true, mangle: false, codegen: { removeWhitespace: true } }
  }
})
