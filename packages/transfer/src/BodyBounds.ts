/**
 * The most that the kernel holds of a body that moves within it. Sockets and pipes are the real memory of bodies: a process
 * that is small itself can use a gigabyte of them.
 */

/**
 * Unsent bytes in a client's socket. More would use memory and gain nothing: bytes that were sent and not acknowledged yet
 * do not count, so a long round trip does not slow a client (net.ipv4.tcp_notsent_lowat in the kernel's ip-sysctl).
 */
export const maxUnsent = 256 * 1024

/** Bytes in a relay's pipe. Its capacity counts fragments of packets, of up to 32 KiB each, and not bytes. */
export const maxInPipe = 256 * 1024

/**
 * Unread bytes in a peer's socket while the client is slower. Without this bound they grow to `net.ipv4.tcp_rmem`, 6 MiB,
 * within milliseconds. It bounds the peer's window too: to some 450 MB/s over a round trip of 1 ms.
 */
export const maxUnread = 448 * 1024

/** The bound of a body that comes from a file, in bytes. */
export const ofFile: number = maxUnsent
/** The bound of a body that comes from a peer, in bytes. */
export const ofRelay: number = maxUnsent + maxInPipe + maxUnread
