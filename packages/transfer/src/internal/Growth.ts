/**
 * How often the end of a growing file is looked at, in milliseconds. A look costs one system call; inotify would report each
 * write, which costs more.
 */
export const growthMillis = 10
