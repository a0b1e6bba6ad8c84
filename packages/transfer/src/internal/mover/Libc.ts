/**
 * The system calls that move bytes within the kernel, as functions of the C library that Node itself is linked with.
 * Linux on x64 and arm64, glibc and musl: koffi has prebuilt binaries for these, so nothing is compiled.
 *
 * A wrong argument here ends the process, so keep this module small.
 */
import { createRequire } from "node:module"

/** The part of koffi that is used. Its platform packages hold the whole library, without the install script of `koffi`. */
interface Koffi {
  readonly load: (
    path: null
  ) => { readonly func: (declaration: string) => (...values: Array<unknown>) => number | bigint }
  readonly errno: () => number
  readonly address: (memory: Uint8Array) => bigint
}

export const errno = {
  EINTR: 4,
  EIO: 5,
  EAGAIN: 11,
  EINVAL: 22,
  EPIPE: 32,
  EOPNOTSUPP: 95,
  ENETDOWN: 100,
  EHOSTUNREACH: 113
} as const

export const epoll = { IN: 0x1, OUT: 0x4, ONESHOT: 0x4000_0000 } as const

/** The calls as the C library has them: after -1, `errno` returns the reason. */
export interface Libc {
  readonly errno: () => number
  readonly close: (fd: number) => number
  /** Duplicates a descriptor. */
  readonly duplicate: (fd: number) => number
  readonly eventfd: () => number
  /** Wakes the thread that waits for an eventfd. */
  readonly signal: (eventfd: number) => void
  /** Discards the wake-ups so far. */
  readonly drain: (eventfd: number) => void
  readonly epollCreate: () => number
  readonly epollCtl: (epoll: number, operation: number, fd: number, event: Buffer) => number
  readonly epollWait: (epoll: number, events: Buffer, count: number, millis: number) => number
  readonly sendfile: (to: number, from: number, offset: number, count: number) => number
  readonly splice: (from: number, to: number, count: number) => number
  /** A pipe: its end to read from, and its end to write to. */
  readonly newPipe: () => readonly [number, number] | undefined
  /** Sets the capacity of a pipe; returns its capacity afterwards. */
  readonly resizePipe: (fd: number, bytes: number) => number
  /** Bounds the unsent bytes of a socket: with more, it is not writable. */
  readonly limitUnsent: (socket: number, bytes: number) => number
  /** Bounds the unread bytes of a socket, the kernel's own overhead included (`net.core.rmem_max` bounds it further). */
  readonly limitUnread: (socket: number, bytes: number) => number
  /** Looks for a received byte without taking it: 1 if there is one, 0 at the end, -1 with EAGAIN if there is none yet. */
  readonly peek: (socket: number) => number
  /** Makes the kernel read a part of a file into its cache, without waiting. */
  readonly readAhead: (fd: number, offset: number, bytes: number) => void
  /** Reads one byte of a file without the disk: 1, 0 at its end, -1 with EAGAIN if the disk is needed; 1 if unknown. */
  readonly readCached: (fd: number, offset: number) => number
  /** Takes a read lease on a file and releases it at once: 0, or -1 with EAGAIN if the file is open for writing. */
  readonly tryReadLease: (fd: number) => number
}

const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const F_DUPFD_CLOEXEC = 1030
const F_SETSIG = 10
const F_SETLEASE = 1024
const F_RDLCK = 0
const F_UNLCK = 2
const SIGURG = 23
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
const SPLICE_F_MOVE = 1
const SPLICE_F_NONBLOCK = 2
const SOL_SOCKET = 1
const SO_RCVBUF = 8
const IPPROTO_TCP = 6
const TCP_NOTSENT_LOWAT = 25
const MSG_PEEK = 2
const MSG_DONTWAIT = 0x40
const POSIX_FADV_WILLNEED = 3
const RWF_NOWAIT = 8

/** The result of `find`; undefined if it throws, because the system does not have it. */
export const optional = <A>(find: () => A): A | undefined => {
  try {
    return find()
  } catch {
    return undefined
  }
}

/** Loads the library. Throws if there is none for this system. */
export const load = (): Libc => {
  const name = `@koromix/koffi-${process.platform}-${process.arch}`
  const koffi = createRequire(import.meta.url)(name) as Koffi
  const library = koffi.load(null)
  const of = (declaration: string) => {
    const call = library.func(declaration)
    return (...values: Array<unknown>) => Number(call(...values))
  }
  const close = of("int close(int)")
  const fcntl = of("int fcntl(int, int, int)")
  const eventfd = of("int eventfd(unsigned int, int)")
  const read = of("long read(int, void*, size_t)")
  const write = of("long write(int, void*, size_t)")
  const epollCreate = of("int epoll_create1(int)")
  const epollCtl = of("int epoll_ctl(int, int, int, void*)")
  const epollWait = of("int epoll_wait(int, void*, int, int)")
  const sendfile = of("long sendfile(int, int, void*, size_t)")
  const splice = of("long splice(int, void*, int, void*, size_t, unsigned int)")
  const pipe2 = of("int pipe2(void*, int)")
  const setsockopt = of("int setsockopt(int, int, int, void*, unsigned int)")
  const recv = of("long recv(int, void*, size_t, int)")
  const fadvise = of("int posix_fadvise(int, long, long, int)")
  // musl has it since 1.2.5.
  const preadv2 = optional(() => of("long preadv2(int, void*, int, long, int)"))

  const one = Buffer.allocUnsafeSlow(8)
  one.writeBigUInt64LE(1n)
  const word = Buffer.allocUnsafeSlow(8)
  const setOption = (socket: number, level: number, option: number, value: number) => {
    word.writeInt32LE(value)
    return setsockopt(socket, level, option, word, 4)
  }
  const offsetCell = Buffer.allocUnsafeSlow(8)
  const byte = Buffer.allocUnsafeSlow(1)
  // struct iovec { void *base; size_t length }
  const vector = Buffer.allocUnsafeSlow(16)
  vector.writeBigUInt64LE(koffi.address(byte), 0)
  vector.writeBigUInt64LE(1n, 8)

  return {
    errno: koffi.errno,
    close,
    duplicate: (fd) => fcntl(fd, F_DUPFD_CLOEXEC, 0),
    eventfd: () => eventfd(0, O_NONBLOCK | O_CLOEXEC),
    signal: (eventfd) => void write(eventfd, one, 8),
    drain: (eventfd) => void read(eventfd, word, 8),
    epollCreate: () => epollCreate(O_CLOEXEC),
    epollCtl,
    epollWait,
    sendfile: (to, from, offset, count) => {
      offsetCell.writeBigInt64LE(BigInt(offset))
      return sendfile(to, from, offsetCell, count)
    },
    splice: (from, to, count) => splice(from, null, to, null, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK),
    newPipe: () => {
      const ends = Buffer.allocUnsafeSlow(8)
      return pipe2(ends, O_NONBLOCK | O_CLOEXEC) === 0 ? [ends.readInt32LE(0), ends.readInt32LE(4)] : undefined
    },
    resizePipe: (fd, bytes) => {
      fcntl(fd, F_SETPIPE_SZ, bytes)
      return fcntl(fd, F_GETPIPE_SZ, 0)
    },
    limitUnsent: (socket, bytes) => setOption(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, bytes),
    // The kernel doubles it: socket(7).
    limitUnread: (socket, bytes) => setOption(socket, SOL_SOCKET, SO_RCVBUF, bytes / 2),
    peek: (socket) => recv(socket, byte, 1, MSG_PEEK | MSG_DONTWAIT),
    readAhead: (fd, offset, bytes) => void fadvise(fd, offset, bytes, POSIX_FADV_WILLNEED),
    readCached: (fd, offset) => preadv2?.(fd, vector, 1, offset, RWF_NOWAIT) ?? 1,
    tryReadLease: (fd) => {
      // If another process opens the file for writing meanwhile, the kernel sends a signal: SIGIO would end this process; SIGURG is ignored.
      if (fcntl(fd, F_SETSIG, SIGURG) !== 0 || fcntl(fd, F_SETLEASE, F_RDLCK) !== 0) return -1
      return fcntl(fd, F_SETLEASE, F_UNLCK)
    }
  }
}
