// For LD_PRELOAD: a file system that lacks what the variable LACKS names: flock, chmod, fsync (of a folder),
// symlink, hardlink.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int lacks(const char *what) {
    const char *list = getenv("LACKS");
    return list && strstr(list, what) != NULL;
}

#define REFUSE(what, code) if (lacks(what)) { errno = code; return -1; }
#define NEXT(name, ...) ((int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

int flock(int file, int operation) {
    REFUSE("flock", ENOSYS)
    return NEXT(flock, int, int)(file, operation);
}

int chmod(const char *path, mode_t mode) {
    REFUSE("chmod", EOPNOTSUPP)
    return NEXT(chmod, const char *, mode_t)(path, mode);
}

int fchmod(int file, mode_t mode) {
    REFUSE("chmod", EOPNOTSUPP)
    return NEXT(fchmod, int, mode_t)(file, mode);
}

int fsync(int file) {
    struct stat status;
    if (lacks("fsync") && fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return NEXT(fsync, int)(file);
}

int symlink(const char *target, const char *path) {
    REFUSE("symlink", EPERM)
    return NEXT(symlink, const char *, const char *)(target, path);
}

int link(const char *from, const char *to) {
    REFUSE("hardlink", EPERM)
    return NEXT(link, const char *, const char *)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    REFUSE("hardlink", EPERM)
    return NEXT(linkat, int, const char *, int, const char *, int)(a, from, b, to, flags);
}
