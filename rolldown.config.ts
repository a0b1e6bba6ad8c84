import { defineConfig } from "rolldown"

/** One ESM file that runs with Node alone; what is imported on demand, and what threads run, is beside it. */
export default defineConfig({
  input: { main: "apps/spegel/src/main.ts", DigestWorker: "packages/registry/src/DigestWorker.ts" },
  platform: "node",
  resolve: { conditionNames: ["source", "node", "import", "default"] },
  output: {
    dir: "apps/spegel/bundle",
    format: "esm",
    cleanDir: true,
    sourcemap: false,
    minify: { compress: true, mangle: false, codegen: { removeWhitespace: true } }
  }
})
