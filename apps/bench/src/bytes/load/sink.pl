# Clients that cost next to nothing, in a process of their own: the kernel drops the bytes that they receive (MSG_TRUNC)
# and wakes a client once for 2 MiB (SO_RCVLOWAT), which Node has no words for. Perl is part of every Debian.
#
# perl sink.pl HOST PORT CLIENTS REQUESTS BYTES_PER_SECOND HEAD
#
# Each client sends the request HEAD so many times, one after another, and takes so many bytes per second of the answers;
# 0 for all that it can get. A client that is told 404 or 503 leaves. Prints {"bytes", "refused", "seconds", "cpuSeconds"}.
use strict;
use warnings;
use Errno qw(EAGAIN);
use POSIX ();
use Socket qw(inet_aton pack_sockaddr_in PF_INET SOCK_STREAM IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_RCVLOWAT
  MSG_PEEK MSG_DONTWAIT MSG_TRUNC);

my ($host, $port, $clients, $requests, $bytes_per_second, $head) = @ARGV;
my $most_at_once = 4 * 1024 * 1024;
my $longest_head = 16 * 1024;
my $enough_to_wake = 2 * 1024 * 1024;
my $pause_seconds = 0.05;
my $ticks_per_second = POSIX::sysconf(POSIX::_SC_CLK_TCK());

my $received = 0;
my $refused = 0;
my $buffer = '';
my %client_of;
my ($begun) = POSIX::times();

sub seconds { return ((POSIX::times())[0] - $begun) / $ticks_per_second }

# How many bytes have to wait for the client before it is woken.
sub wake_at {
  my ($client, $bytes) = @_;
  return if $client->{wake_at} == $bytes;
  $client->{wake_at} = $bytes;
  setsockopt($client->{socket}, SOL_SOCKET, SO_RCVLOWAT, pack('i', $bytes)) or die "SO_RCVLOWAT: $!";
}

sub ask {
  my ($client) = @_;
  $client->{left} = undef;
  wake_at($client, 1);
  syswrite($client->{socket}, $head) == length($head) or die "the request: $!";
}

# Reads the head of an answer alone, so that all that comes after it can be dropped.
sub read_head {
  my ($client) = @_;
  defined recv($client->{socket}, $buffer, $longest_head, MSG_PEEK | MSG_DONTWAIT) or die "the answer: $!";
  my $end = index($buffer, "\r\n\r\n");
  return if $end < 0 and length($buffer) > 0 and length($buffer) < $longest_head;
  if ($buffer =~ m{^HTTP/1\.1 (?:404|503) }) {
    $refused++;
    delete $client_of{fileno($client->{socket})};
    return;
  }
  die "answered " . substr($buffer, 0, 300) if $end < 0 or $buffer !~ m{^HTTP/1\.1 20[06] };
  $buffer =~ /^content-length: (\d+)/im or die "an answer without a length";
  $client->{left} = $1 + 0;
  recv($client->{socket}, $buffer, $end + 4, 0);
}

# How many bytes the client may take now.
sub allowance {
  my ($client) = @_;
  return $most_at_once if $bytes_per_second == 0;
  return int(seconds() * $bytes_per_second) - $client->{taken};
}

sub read_body {
  my ($client) = @_;
  my ($left, $allowed) = ($client->{left}, allowance($client));
  my $most = $left < $allowed ? $left : $allowed;
  return if $most <= 0;
  if (!defined recv($client->{socket}, $buffer, $most, MSG_TRUNC | MSG_DONTWAIT)) {
    return if $! == EAGAIN;
    die "the answer: $!";
  }
  my $size = length($buffer) or die "the connection was closed with $left bytes of the body to come";
  $client->{left} -= $size;
  $client->{taken} += $size;
  $received += $size;
}

sub serve {
  my ($client) = @_;
  if (defined $client->{left}) { read_body($client) } else { read_head($client) }
  my $left = $client->{left};
  return if !defined $left;
  if ($left > 0) {
    wake_at($client, $left < $enough_to_wake ? $left : $enough_to_wake) if $bytes_per_second == 0;
  } elsif (++$client->{requests} < $requests) {
    ask($client);
  } else {
    delete $client_of{fileno($client->{socket})};
  }
}

for (1 .. $clients) {
  socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
  connect($socket, pack_sockaddr_in($port, inet_aton($host))) or die "$host:$port: $!";
  setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1) or die "TCP_NODELAY: $!";
  my $client = { socket => $socket, requests => 0, taken => 0, wake_at => 1 };
  $client_of{fileno($socket)} = $client;
  ask($client);
}
while (%client_of) {
  my $readable = '';
  for my $client (values %client_of) {
    vec($readable, fileno($client->{socket}), 1) = 1 if !defined $client->{left} or allowance($client) > 0;
  }
  select($readable, undef, undef, $bytes_per_second == 0 ? undef : $pause_seconds) >= 0 or die "select: $!";
  for my $client (values %client_of) {
    serve($client) if vec($readable, fileno($client->{socket}), 1);
  }
}
my (undef, $user, $system) = POSIX::times();
printf '{"bytes":%d,"refused":%d,"seconds":%.3f,"cpuSeconds":%.3f}', $received, $refused, seconds(),
  ($user + $system) / $ticks_per_second;
