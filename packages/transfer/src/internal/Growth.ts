/**
 * How often the end of a file that grows is looked at. A look costs a system call; an event of inotify for each write of
 * whoever writes it would cost more.
 */
export const growthMillis = 10
