/** Debian's Chromium, and pages in it that note what they complain of and whom they ask. */
import { assert } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import axe from "axe-core"
import { Effect } from "effect"
import { mkdir } from "node:fs/promises"
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core"

/** Says what this machine lacks; undefined if nothing. */
export const missingPrerequisite = (): string | undefined =>
  ContainerdDaemon.missingPrerequisite("docker-registry", "chromium")

/** Screenshots and figures, which CI keeps. */
export const artifacts = "artifacts/page"

export const start = Effect.acquireRelease(
  Effect.promise(async () => {
    await mkdir(artifacts, { recursive: true })
    // Chromium has no sandbox for root.
    return chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] })
  }),
  (browser) => Effect.promise(() => browser.close())
)

export interface Watched {
  readonly page: Page
  /** What the console and scripts complained of. */
  readonly complaints: Array<string>
  /** The hosts that were asked. */
  readonly hosts: Set<string>
}

export const open = (browser: Browser, url: string, options: BrowserContextOptions = {}) =>
  Effect.acquireRelease(
    Effect.promise(async (): Promise<Watched> => {
      const context = await browser.newContext(options)
      const page = await context.newPage()
      const watched: Watched = { page, complaints: [], hosts: new Set() }
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) watched.complaints.push(message.text())
      })
      page.on("pageerror", (error) => watched.complaints.push(String(error)))
      page.on("request", (request) => {
        if (!request.url().startsWith("data:")) watched.hosts.add(new URL(request.url()).host)
      })
      await page.goto(url)
      return watched
    }),
    ({ page }) => Effect.promise(() => page.context().close())
  )

/** What axe-core finds in a page, of any impact. Playwright evaluates it past the page's content security policy. */
export const findings = async (page: Page): Promise<ReadonlyArray<string>> => {
  await page.evaluate(axe.source)
  const results = await page.evaluate(async () => {
    const { axe: injected } = globalThis as unknown as { readonly axe: typeof axe }
    return injected.run()
  })
  return results.violations.map(({ help, id, impact, nodes }) =>
    `${impact} ${id}: ${help}: ${nodes.map(({ html }) => html).join(" ").slice(0, 500)}`
  )
}

/** Fails unless the page has no room beside it: nothing is wider than the screen. */
export const assertFits = async (page: Page): Promise<void> => {
  const [wide, screen] = await page.evaluate<[number, number]>("[document.documentElement.scrollWidth, innerWidth]")
  assert.isAtMost(wide, screen)
}
