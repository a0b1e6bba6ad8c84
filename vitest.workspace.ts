import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

if (Number(process.versions.node.split(".")[0]) < 24) {
  throw new Error(
    `Node ${process.version} is too old: use the npm scripts or npx, which put the project's own Node first in PATH`
  )
}

// Each test file loads Effect anew, in a process of its own; half of that is compiling it.
process.env["NODE_COMPILE_CACHE"] ??= fileURLToPath(new URL("node_modules/.cache/compiled", import.meta.url))

/** Tests of one suite, by how their files end. */
const tests = (suite: string) => [`{packages,apps,examples}/*/test/**/*.${suite}.test.ts`]
const suites = ["integration", "stress", "chart", "kubernetes", "page", "e2e"]

/** Processes of tests run the bundle. */
const globalSetup = ["apps/spegel/test/BundleSetup.ts"]

export default defineConfig({
  // Workspace packages resolve to their sources: tests need no build.
  resolve: { conditions: ["@spegel-ts/source"] },
  ssr: { resolve: { conditions: ["@spegel-ts/source"] } },
  test: {
    // More than there are processors: tests wait for sockets and timers half of their time.
    maxWorkers: Math.ceil(1.5 * availableParallelism()),
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          // Nothing here takes a second; a machine that is busy with other things may need longer.
          testTimeout: 30_000,
          include: ["{packages,apps,examples}/*/test/**/*.test.ts"],
          exclude: suites.flatMap(tests)
        }
      },
      {
        extends: true,
        test: { name: "integration", include: tests("integration"), globalSetup, testTimeout: 60_000 }
      },
      {
        extends: true,
        // What takes long by its nature: many random inputs, processes killed at many places, times that are real.
        test: { name: "stress", include: tests("stress"), globalSetup, testTimeout: 120_000 }
      },
      {
        extends: true,
        test: { name: "chart", include: tests("chart"), globalSetup, testTimeout: 60_000, hookTimeout: 900_000 }
      },
      {
        extends: true,
        test: {
          name: "kubernetes",
          include: tests("kubernetes"),
          globalSetup,
          testTimeout: 120_000,
          hookTimeout: 900_000
        }
      },
      {
        extends: true,
        // The debug page in a browser.
        test: { name: "page", include: tests("page"), globalSetup, testTimeout: 300_000, hookTimeout: 120_000 }
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: tests("e2e"),
          globalSetup,
          testTimeout: 300_000,
          hookTimeout: 120_000,
          fileParallelism: false
        }
      }
    ]
  }
})
