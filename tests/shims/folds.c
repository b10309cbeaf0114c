// For LD_PRELOAD: below the folder $FOLDS the case of names means nothing, as on the default disk of macOS. A
// name keeps the case that it was made with.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONGEST 4096
#define NEXT(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

// Appends to `path` the name in this folder that is `name` but for its case; `name` itself if there is none.
static void append(char *path, const char *name) {
    DIR *folder = NEXT(DIR *, opendir, const char *)(path);
    char found[NAME_MAX + 1];
    snprintf(found, sizeof found, "%s", name);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (!strcasecmp(entry->d_name, name)) snprintf(found, sizeof found, "%s", entry->d_name);
    if (folder) closedir(folder);
    strncat(path, "/", LONGEST - strlen(path) - 1);
    strncat(path, found, LONGEST - strlen(path) - 1);
}

static const char *folded(const char *path, char *buffer) {
    const char *root = getenv("FOLDS");
    size_t length = root ? strlen(root) : 0;
    if (!path || !length || strncmp(path, root, length) || (path[length] && path[length] != '/')) return path;
    snprintf(buffer, LONGEST, "%s", root);
    char rest[LONGEST];
    snprintf(rest, sizeof rest, "%s", path + length);
    char *state = NULL;
    for (char *part = strtok_r(rest, "/", &state); part; part = strtok_r(NULL, "/", &state)) append(buffer, part);
    return buffer;
}

#define WITH(...) char one[LONGEST], two[LONGEST]; (void)two; return __VA_ARGS__
#define OPEN(name)                                                                                          \
    int name(const char *path, int flags, ...) {                                                            \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, int); va_end(rest);                 \
        WITH(NEXT(int, name, const char *, int, mode_t)(folded(path, one), flags, mode));                   \
    }
#define OPENAT(name)                                                                                        \
    int name(int folder, const char *path, int flags, ...) {                                                \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, int); va_end(rest);                 \
        WITH(NEXT(int, name, int, const char *, int, mode_t)(folder, folded(path, one), flags, mode));      \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *status) {
    WITH(NEXT(int, statx, int, const char *, int, unsigned, struct statx *)(folder, folded(path, one), flags, mask, status));
}
int rename(const char *from, const char *to) {
    WITH(NEXT(int, rename, const char *, const char *)(folded(from, one), folded(to, two)));
}
int symlink(const char *target, const char *path) {
    WITH(NEXT(int, symlink, const char *, const char *)(target, folded(path, one)));
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    WITH(NEXT(int, linkat, int, const char *, int, const char *, int)(a, folded(from, one), b, folded(to, two), flags));
}
ssize_t readlink(const char *path, char *target, size_t size) {
    WITH(NEXT(ssize_t, readlink, const char *, char *, size_t)(folded(path, one), target, size));
}
int mkdir(const char *path, mode_t mode) { WITH(NEXT(int, mkdir, const char *, mode_t)(folded(path, one), mode)); }
int unlink(const char *path) { WITH(NEXT(int, unlink, const char *)(folded(path, one))); }
int rmdir(const char *path) { WITH(NEXT(int, rmdir, const char *)(folded(path, one))); }
int chmod(const char *path, mode_t mode) { WITH(NEXT(int, chmod, const char *, mode_t)(folded(path, one), mode)); }
DIR *opendir(const char *path) { WITH(NEXT(DIR *, opendir, const char *)(folded(path, one))); }
