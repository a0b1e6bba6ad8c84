/**
 * What the kernel holds at most of a body that moves within it. Sockets and pipes are the real memory of bodies: a process
 * that is small in itself can use a gigabyte of them.
 */

/**
 * Unsent bytes in a client's socket. More would only be memory: what is sent and not confirmed yet is not in it, so that a
 * long way does not slow a client. (net.ipv4.tcp_notsent_lowat in the kernel's ip-sysctl.)
 */
export const maxUnsent = 256 * 1024

/** Bytes in a relay's pipe, which counts fragments of packets, of up to 32 KiB each, and not bytes. */
export const maxInPipe = 256 * 1024

/**
 * Bytes that the peer's socket holds while the client is slower. Without this bound they grow to `net.ipv4.tcp_rmem`, 6 MiB,
 * within milliseconds. It bounds the peer's window too, to some 450 MB/s over a round trip of 1 ms.
 */
export const maxUnread = 448 * 1024

/** Bytes of a file's body, and of a relayed one. */
export const ofFile: number = maxUnsent
export const ofRelay: number = maxUnsent + maxInPipe + maxUnread
