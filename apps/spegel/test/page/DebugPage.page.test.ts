/** The debug page in a real browser, of real nodes that pull from a slow registry. Screenshots are kept in artifacts/page. */
import { assert, describe, it } from "@effect/vitest"
import * as EventStreams from "@spegel-ts/spegel/page/EventStreams"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { Effect, Fiber } from "effect"
import type { Browser as Chromium, Page } from "playwright-core"
import * as Browser from "./Browser.ts"
import * as Cluster from "./Cluster.ts"

const missing = Browser.missingPrerequisite()

const looks = [1280, 390].flatMap((width) =>
  (["light", "dark"] as const).map((colorScheme) => ({ colorScheme, viewport: { width, height: 900 } }))
)

const barOf = (page: Page) => page.locator("#pulls progress[value]").first()
const valueOf = async (page: Page) => Number(await barOf(page).getAttribute("value"))

const checkLooks = Effect.fnUntraced(function*(browser: Chromium, url: string, name: string) {
  for (const look of looks) {
    yield* Effect.scoped(Effect.gen(function*() {
      const { complaints, hosts, page } = yield* Browser.open(browser, url, look)
      yield* Effect.promise(async () => {
        await page.locator("#live.on").waitFor()
        const file = `${name}-${look.viewport.width}-${look.colorScheme}.png`
        await page.screenshot({ path: `${Browser.artifacts}/${file}`, fullPage: true })
        await Browser.assertFits(page)
        assert.deepStrictEqual(await Browser.findings(page), [], file)
      })
      assert.deepStrictEqual(complaints, [])
      assert.deepStrictEqual([...hosts], [new URL(url).host])
    }))
  }
})

/** The node whose download others take as it grows: all see the tree, and this one both of its sides. */
const findLeader = Effect.fnUntraced(function*({ nodes }: Cluster.Cluster) {
  let found: string | undefined
  yield* eventually(Effect.promise(async () => {
    for (const { metrics } of nodes) {
      const pulls = await (await fetch(`${metrics}/debug/pulls.json`)).json() as ReadonlyArray<
        { readonly blobs: ReadonlyArray<{ readonly source: string; readonly to: ReadonlyArray<unknown> }> }
      >
      if (pulls.some(({ blobs }) => blobs.some(({ source, to }) => source === "upstream" && to.length > 0))) {
        found = metrics
      }
    }
    return found !== undefined
  }))
  return found ?? ""
})

const checkRunning = Effect.fnUntraced(function*(browser: Chromium, cluster: Cluster.Cluster) {
  const pulling = yield* Effect.forkScoped(cluster.pullNext)
  const leader = yield* findLeader(cluster)
  const { complaints, page } = yield* Browser.open(browser, `${leader}/debug/web/`)
  const before = yield* Effect.promise(() => valueOf(page))
  yield* eventually(Effect.map(Effect.promise(() => valueOf(page)), (value) => value > before))
  yield* Effect.promise(async () => {
    const trees = await page.locator("#pulls .tree").allInnerTexts()
    assert.isTrue(trees.some((tree) => /upstream[^]*this node[^]*127\.0\.0\.\d/.test(tree)), trees.join("\n"))
  })
  const told = yield* SpegelProcess.run(["status", `--metrics-addr=${new URL(leader).host}`])
  assert.strictEqual(told.code, 0, told.stderr)
  assert.match(told.stdout, /Pulling .*\/team\/app\n(.*\n)*  sha256:.* from upstream, on to 127\.0\.0\.\d/)
  yield* checkLooks(browser, `${leader}/debug/web/`, "pulling")
  // It was still being pulled.
  assert.strictEqual(yield* Effect.promise(() => barOf(page).count()), 1)
  // The page sees the end by itself.
  yield* cluster.hurry
  yield* Fiber.join(pulling)
  yield* Effect.promise(() => page.getByText("Nothing is being pulled.").waitFor())
  assert.deepStrictEqual(complaints, [])
}, Effect.scoped)

const checkLookups = Effect.fnUntraced(function*(browser: Chromium, { held, heldDigest, nodes }: Cluster.Cluster) {
  const [node] = nodes
  if (node === undefined) return yield* Effect.die("no nodes")
  const url = `${node.metrics}/debug/web/`
  for (const javaScriptEnabled of [true, false]) {
    const { complaints, page } = yield* Browser.open(browser, url, { javaScriptEnabled })
    const ask = async (image: string) => {
      await page.getByLabel("Image or digest").fill(image)
      await page.getByRole("button", { name: "Who has it?" }).click()
      return page.locator("#lookup [role=status]").innerText()
    }
    yield* Effect.promise(async () => {
      for (const image of [held, heldDigest]) {
        const answer = await ask(image)
        for (const words of ["on this node", "On 2 other nodes", "127.0.0.3", "127.0.0.4"]) {
          assert.include(answer, words)
        }
      }
      assert.include(await ask("nobody/has:this"), "No other node says that it has it")
      assert.include(await ask("<b>Bad"), "invalid image reference")
      // Without scripts the page has all of it, too.
      assert.isAbove(await page.locator("#requests details").count(), 5)
      assert.include(await page.locator("#images").innerText(), held)
    })
    assert.deepStrictEqual(complaints, [])
  }
  const lookup = (image: string, ...flags: ReadonlyArray<string>) =>
    SpegelProcess.run(["lookup", image, `--metrics-addr=${new URL(url).host}`, ...flags])
  const found = yield* lookup(held)
  assert.strictEqual(found.code, 0, found.stderr)
  for (const words of ["this node", "127.0.0.3", "127.0.0.4"]) assert.include(found.stdout, words)
  assert.strictEqual((yield* lookup("nobody/has:this")).code, 1)
  assert.strictEqual(JSON.parse((yield* lookup(heldDigest, "--output=json")).stdout).heldHere, heldDigest)
}, Effect.scoped)

/** A row opens by the keyboard, and stays open while others come. */
const checkStory = Effect.fnUntraced(function*(browser: Chromium, { held, nodes: [node] }: Cluster.Cluster) {
  if (node === undefined) return yield* Effect.die("no nodes")
  const { page } = yield* Browser.open(browser, `${node.metrics}/debug/web/`)
  yield* Effect.promise(async () => {
    await page.locator("#live.on").waitFor()
    const row = page.locator("#requests summary").first()
    await row.focus()
    await page.keyboard.press("Enter")
    assert.match(await page.locator("#requests details[open] .whole").innerText(), /^sha256:[0-9a-f]{64}$|team\/app/)
  })
  yield* node.remove(held)
  yield* node.pull(held)
  yield* Effect.promise(async () => {
    await page.locator("#requests li:first-child details:not([open])").waitFor()
    assert.strictEqual(await page.locator("#requests details[open]").count(), 1)
    assert.strictEqual(await page.locator("#requests details[open] > summary:focus").count(), 1)
    await page.screenshot({ path: `${Browser.artifacts}/story-1280-light.png`, fullPage: true })
  })
}, Effect.scoped)

const checkStreams = Effect.fnUntraced(function*({ nodes: [node] }: Cluster.Cluster) {
  const open = Effect.promise((signal) => fetch(`${node?.metrics}/debug/events`, { signal }))
  const answers: Array<Response> = []
  // Those of pages that were closed a moment ago may still count.
  yield* eventually(Effect.map(open, (answer) => {
    answers.push(answer)
    return answer.status === 503
  }))
  assert.strictEqual(answers.filter(({ status }) => status === 200).length, EventStreams.maxStreams)
  yield* Effect.promise(() => Promise.all(answers.map(async ({ body }) => body?.cancel())))
  yield* eventually(Effect.map(
    Effect.tap(open, ({ body }) => Effect.promise(async () => body?.cancel())),
    ({ status }) => status === 200
  ))
}, Effect.scoped)

const checkProfile = Effect.fnUntraced(function*({ nodes: [node] }: Cluster.Cluster) {
  const take = (query: string, headers = {}) =>
    Effect.promise(() => fetch(`${node?.metrics}/debug/profile${query}`, { headers }))
  const taking = yield* Effect.forkScoped(Effect.all([take("?seconds=1"), take("?seconds=1")], { concurrency: 2 }))
  assert.strictEqual((yield* take("?seconds=61")).status, 400)
  assert.strictEqual((yield* take("", { "sec-fetch-site": "cross-site" })).status, 403)
  const both = yield* Fiber.join(taking)
  assert.sameMembers(both.map(({ status }) => status), [200, 503])
  const profile = yield* Effect.promise(() => both.find(({ status }) => status === 200)?.json() ?? Promise.reject())
  assert.isAbove((profile as { readonly nodes: ReadonlyArray<unknown> }).nodes.length, 10)
}, Effect.scoped)

describe.skipIf(missing !== undefined)(`the debug page${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  it.live("shows a pull as it goes on, answers lookups, and is fit to be read", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster.start
      const browser = yield* Browser.start
      yield* checkRunning(browser, cluster)
      yield* checkLookups(browser, cluster)
      yield* checkStory(browser, cluster)
      yield* checkLooks(browser, `${cluster.nodes[1]?.metrics}/debug/web/?image=${cluster.held}`, "idle")
      yield* checkStreams(cluster)
      yield* checkProfile(cluster)
    }), 300_000)
})
