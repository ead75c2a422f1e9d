/*
 * What a test can do to a process from within: preloaded (LD_PRELOAD), this maps the file that RAYD_CHAOS_SHIM names, two
 * numbers of eight bytes that the test changes at any moment.
 *
 * The first one is added, as nanoseconds, to what the system says is the time. Clocks that only count (CLOCK_MONOTONIC and
 * its like) are as they are: no setting of the time moves those.
 *
 * The second one is how many times a bit is to be turned over in what arrives by TCP, as a bad network card would: each time
 * anything is read while it is above zero, it is counted down, and some bit of what was read is changed.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND = 1000000000;
struct orders {
  int64_t clock_ns;
  int64_t flips;
};
static struct orders none;
static volatile struct orders *orders = &none;
static int (*real)(clockid_t, struct timespec *);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_recv)(int, void *, size_t, int);
static ssize_t (*real_readv)(int, const struct iovec *, int);

__attribute__((constructor)) static void begin(void) {
  real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  real_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  real_recv = (ssize_t(*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
  real_readv = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "readv");
  const char *path = getenv("RAYD_CHAOS_SHIM");
  int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof(struct orders), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) orders = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (real == NULL) begin();
  int status = real(clock, time);
  if (status != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return status;
  int64_t now = time->tv_sec * SECOND + time->tv_nsec + orders->clock_ns;
  time->tv_sec = now / SECOND;
  time->tv_nsec = now % SECOND;
  return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at != NULL) *at = now.tv_sec;
  return now.tv_sec;
}

static int is_tcp(int file) {
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  if (getsockname(file, (struct sockaddr *)&address, &length) != 0) return 0;
  return address.ss_family == AF_INET || address.ss_family == AF_INET6;
}

static ssize_t garble(int file, uint8_t *bytes, ssize_t count) {
  if (count <= 0 || orders->flips <= 0 || !is_tcp(file)) return count;
  int64_t left = __atomic_fetch_sub((int64_t *)&orders->flips, 1, __ATOMIC_SEQ_CST);
  if (left > 0) bytes[(uint64_t)left * 2654435761u % (uint64_t)count] ^= 1 << left % 8;
  return count;
}

ssize_t read(int file, void *into, size_t size) {
  if (real_read == NULL) begin();
  return garble(file, into, real_read(file, into, size));
}

ssize_t recv(int file, void *into, size_t size, int flags) {
  if (real_recv == NULL) begin();
  return garble(file, into, real_recv(file, into, size, flags));
}

ssize_t readv(int file, const struct iovec *parts, int count) {
  if (real_readv == NULL) begin();
  ssize_t got = real_readv(file, parts, count);
  if (got > 0 && count > 0) garble(file, parts[0].iov_base, got < (ssize_t)parts[0].iov_len ? got : (ssize_t)parts[0].iov_len);
  return got;
}
