import { defineConfig } from "vitest/config"

if (Number(process.versions.node.split(".")[0]) < 24) {
  throw new Error(
    `Node ${process.version} is too old: use the npm scripts or npx, which put the project's own Node first in PATH`
  )
}

const tests = "{packages,apps,examples}/*/test/**/*"

export default defineConfig({
  // Workspace packages resolve to their sources: tests need no build.
  resolve: { conditions: ["source"] },
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          // Nothing here takes a second; a machine that is busy with other things may need longer.
          testTimeout: 30_000,
          include: [`${tests}.test.ts`],
          exclude: ["**/*.integration.test.ts", "**/*.e2e.test.ts", "**/*.kubernetes.test.ts"]
        }
      },
      {
        extends: true,
        test: { name: "integration", include: [`${tests}.integration.test.ts`], testTimeout: 60_000 }
      },
      {
        extends: true,
        test: {
          name: "kubernetes",
          include: [`${tests}.kubernetes.test.ts`],
          testTimeout: 120_000,
          hookTimeout: 900_000
        }
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: [`${tests}.e2e.test.ts`],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          fileParallelism: false
        }
      }
    ]
  }
})
