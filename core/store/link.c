/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* One content under two names: a reflink, else a hard link, else a copy. */
#include "config.h"
#include "core/store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int copy(int from, int to)
{
    const size_t room = 1 << 20;
    char *bytes = malloc(room);
    int rc = bytes != NULL ? 0 : -1;
    for (ssize_t n = 1; rc == 0 && n != 0;) {
        n = read(from, bytes, room);
        if (n < 0 && errno != EINTR)
            rc = -1;
        for (ssize_t done = 0; rc == 0 && done < n;) {
            const ssize_t m = write(to, bytes + done, (size_t)(n - done));
            if (m > 0)
                done += m;
            else if (errno != EINTR)
                rc = -1;
        }
    }
    free(bytes);
    return rc;
}

int sl_store_link(const char *from, const char *to)
{
    const int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (in < 0)
        return -1;
    int rc = -1, out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (out >= 0 && (rc = ioctl(out, FICLONE, in)) != 0 && unlink(to) == 0) {
        close(out);
        out = -1;
        /* Shared from here on: read-only, so that no program changes under one name what others have under theirs. */
        rc = link(from, to);
        if (rc == 0 && fchmod(in, 0444) != 0)
            rc = unlink(to) == 0 ? -1 : 0;
        if (rc != 0 && (out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) >= 0)
            rc = copy(in, out);
    }
    const int why = errno;
    if (out >= 0 && close(out) != 0)
        rc = -1;
    if (rc != 0 && why != EEXIST)
        unlink(to);
    close(in);
    errno = why;
    return rc;
}
