/**
 * Measures foreign calls by koffi, and by node:ffi if this Node has it: `node apps/bench/src/calls.ts`. One call has no
 * arguments, the other one a pointer.
 */
import { createRequire } from "node:module"

const calls = 1_000_000

/** Nanoseconds a call: the least of five runs, since others on the machine only add. */
const nanosOf = (call: () => unknown): number => {
  const runs = Array.from({ length: 5 }, () => {
    const begun = process.hrtime.bigint()
    for (let count = 0; count < calls; count++) call()
    return Number(process.hrtime.bigint() - begun) / calls
  })
  return Math.round(Math.min(...runs))
}

type Call = (...values: Array<unknown>) => unknown
const print = (name: string, getppid: Call, epollCreate: Call, epollWait: Call, events: unknown) => {
  const epoll = epollCreate(0)
  process.stdout.write(
    `${name.padEnd(10)} getppid() ${nanosOf(getppid)} ns, epoll_wait(int, void*, int, int) ${
      nanosOf(() => epollWait(epoll, events, 1, 0))
    } ns\n`
  )
}

const events = Buffer.alloc(64)
process.stdout.write(`Node ${process.version}, LTS: ${process.release.lts ?? "no"}\n`)

const koffi = createRequire(import.meta.url)(`@koromix/koffi-linux-${process.arch}`) as {
  readonly load: (path: null) => { readonly func: (declaration: string) => Call }
}
const library = koffi.load(null)
print(
  "koffi",
  library.func("int getppid()"),
  library.func("int epoll_create1(int)"),
  library.func("int epoll_wait(int, void*, int, int)"),
  events
)

const ffi = process.getBuiltinModule("node:ffi" as "node:os") as unknown as {
  readonly DynamicLibrary: new(path: null) => { readonly getFunction: (name: string, signature: object) => Call }
  readonly getRawPointer: (bytes: Buffer) => bigint
} | undefined
if (ffi === undefined) process.stdout.write("node:ffi   not in this Node\n")
else {
  const own = new ffi.DynamicLibrary(null)
  const of = (name: string, ...parameters: ReadonlyArray<string>) =>
    own.getFunction(name, { return: "i32", arguments: parameters })
  print(
    "node:ffi",
    of("getppid"),
    of("epoll_create1", "i32"),
    of("epoll_wait", "i32", "pointer", "i32", "i32"),
    ffi.getRawPointer(events)
  )
}
