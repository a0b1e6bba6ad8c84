import { execFileSync } from "node:child_process"
import { cp } from "node:fs/promises"
import { defineConfig } from "rolldown"

const bundle = "apps/spegel/bundle"
/** Libraries that are no JavaScript, for this machine's kind. */
const native = "node_modules/@koromix"

/** The commit that is bundled. Where there is no repository, as in the Dockerfile's build, the caller says it. */
const commit = () => {
  try {
    const describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return process.env["SPEGEL_COMMIT"] ??
      execFileSync("git", describe, { stdio: ["ignore", "pipe", "ignore"] }).toString().trim()
  } catch {
    return "unknown"
  }
}

/** One ESM file that runs with Node alone; what is imported on demand, and what threads run, is beside it. */
export default defineConfig({
  input: { main: "apps/spegel/src/main.ts", MoverThread: "packages/transfer/src/internal/mover/MoverThread.ts" },
  platform: "node",
  transform: { define: { SPEGEL_COMMIT: JSON.stringify(commit()) } },
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
