# Memory that the kernel holds for a process: buffers of its TCP sockets (`ss`), and its pipes, by their capacity, which
# Node has no words for. Perl is part of every Debian.
#
# perl kernelMemory.pl PID
#
# Prints {"sockets", "pipes"} in bytes.
use strict;
use warnings;
use Fcntl qw(O_RDONLY O_NONBLOCK);

my ($pid) = @ARGV;
my $get_pipe_size = 1032;

my $sockets = 0;
my $mine = 0;
for (`ss --tcp --all --numeric --memory --processes`) {
  $mine = /pid=$pid,/ if /users:|^\S/;
  # Received, queued for sending, allocated ahead, and backlog: what the socket is charged for.
  $sockets += $1 + $2 + $3 + $4 if $mine and /skmem:\(r(\d+),.*?f(\d+),w(\d+),.*?bl(\d+)/;
}

my %size_of;
for my $descriptor (glob "/proc/$pid/fd/*") {
  my $name = readlink($descriptor) // next;
  next if $name !~ /^pipe:/ or exists $size_of{$name};
  sysopen(my $pipe, $descriptor, O_RDONLY | O_NONBLOCK) or next;
  $size_of{$name} = fcntl($pipe, $get_pipe_size, 0) || 0;
}
my $pipes = 0;
$pipes += $_ for values %size_of;
printf '{"sockets":%d,"pipes":%d}', $sockets, $pipes;
