/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* tensorboard: a metrics sink that writes TensorBoard's event files. */
#include <sluice/sluice.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "plugins/tensorboard/events.h"

/* A stage's folder: TensorBoard shows it as one curve of each chart. */
typedef struct curve {
    char *phase, *stage;
    char *file;              /* of its events */
    int64_t iteration;       /* of the line before */
    int64_t before, highest; /* steps of the iterations before this one; the highest step so far */
} curve;

struct tensorboard {
    const char *path;

    const sluice_host *host;
    const char *run_folder;
    char *folder;
    char end[96]; /* of a file's name: ".<run>.sluice" */
    long long start;
    curve *curves;
    size_t count;
};

static const sluice_param params[] = {
    SLUICE_STRING(struct tensorboard, path, .text = "tensorboard",
                  .doc = "Folder of the event files; a relative one lies in the run's folder."),
    SLUICE_PARAMS_END};

static void set_folder(void *self, const char *run_folder)
{
    struct tensorboard *t = self;
    t->run_folder = run_folder;
}

/* Makes the folder of a path, and those above it. */
static bool make_folders(char *path)
{
    for (char *c = path + 1; *c != '\0'; c++)
        if (*c == '/') {
            *c = '\0';
            const bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
            *c = '/';
            if (!made)
                return false;
        }
    return true;
}

static int init(void *self, const sluice_host *host)
{
    struct tensorboard *t = self;
    t->host = host;
    t->start = (long long)time(NULL);
    if (t->run_folder == NULL || t->path == NULL || t->path[0] == '\0')
        return sluice_error(host, SLUICE_BAD_PARAMETER, "path is empty; name a folder");
    const char *name = strrchr(t->run_folder, '/');
    snprintf(t->end, sizeof t->end, ".%.80s.sluice", name != NULL && name[1] != '\0' ? name + 1 : t->run_folder);
    const bool absolute = t->path[0] == '/';
    const size_t size = strlen(t->run_folder) + strlen(t->path) + 2;
    t->folder = malloc(size);
    if (t->folder == NULL)
        return SLUICE_NO_MEMORY;
    snprintf(t->folder, size, "%s%s%s", absolute ? "" : t->run_folder, absolute ? "" : "/", t->path);
    return SLUICE_OK;
}

static int write_events(struct tensorboard *t, const curve *c, events *e)
{
    const int fd = e->failed ? -1 : open(c->file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (e->failed)
        errno = ENOMEM;
    bool written = fd >= 0;
    for (size_t done = 0; written && done < e->size;) {
        const ssize_t n = write(fd, e->bytes + done, e->size - done);
        written = n > 0 || (n < 0 && errno == EINTR);
        done += n > 0 ? (size_t)n : 0;
    }
    const int why = errno;
    if (fd >= 0)
        close(fd);
    free(e->bytes);
    return written ? SLUICE_OK : sluice_error(t->host, SLUICE_IO, "cannot write %s: %s", c->file, strerror(why));
}

/* A run tells its whole story each time it goes on, also what it reuses: what it wrote the time before would stand
 * twice in every chart. Only files of this run's own name are removed. */
static void remove_earlier(const struct tensorboard *t, const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        const size_t n = strlen(entry->d_name), m = strlen(t->end);
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) == 0 && n > m &&
            strcmp(entry->d_name + n - m, t->end) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir != NULL)
        closedir(dir);
}

static int open_curve(struct tensorboard *t, curve *c, double now)
{
    const size_t folder = strlen(t->folder) + strlen(c->phase) + strlen(c->stage) + 4, size = folder + 160;
    c->file = malloc(size);
    if (c->file == NULL)
        return SLUICE_NO_MEMORY;
    snprintf(c->file, size, "%s/%s/%s/", t->folder, c->phase, c->stage);
    if (!make_folders(c->file))
        return sluice_error(t->host, SLUICE_IO, "cannot create the folder %s: %s", c->file, strerror(errno));
    remove_earlier(t, c->file);
    const size_t n = strlen(c->file);
    snprintf(c->file + n, size - n, "events.out.tfevents.%lld%s", t->start, t->end);
    events e = {0};
    events_begin(&e, now);
    return write_events(t, c, &e);
}

static curve *curve_of(struct tensorboard *t, const sluice_metrics_line *line, int *rc)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->curves[i].stage, line->stage) == 0 && strcmp(t->curves[i].phase, line->phase) == 0)
            return &t->curves[i];
    curve *curves = realloc(t->curves, (t->count + 1) * sizeof *curves);
    *rc = SLUICE_NO_MEMORY;
    if (curves == NULL)
        return NULL;
    t->curves = curves;
    curve *c = &curves[t->count];
    *c = (curve){.phase = strdup(line->phase), .stage = strdup(line->stage), .iteration = line->iteration};
    t->count++;
    if (c->phase == NULL || c->stage == NULL)
        return NULL;
    *rc = open_curve(t, c, line->time);
    return *rc < 0 ? NULL : c;
}

/* Where a line stands on the horizontal axis: steps go on over iterations; a number of the whole stage stands at the
 * last of its steps, or at the iteration where there are none. */
static int64_t axis(curve *c, const sluice_metrics_line *line)
{
    if (line->iteration != c->iteration) {
        c->iteration = line->iteration;
        c->before = c->highest;
    }
    if (line->step < 0)
        return c->highest > 0 ? c->highest : line->iteration;
    const int64_t step = c->before + line->step;
    c->highest = step > c->highest ? step : c->highest;
    return step;
}

static int line(void *self, const sluice_metrics_line *said)
{
    struct tensorboard *t = self;
    int rc = SLUICE_OK;
    curve *c = curve_of(t, said, &rc);
    if (c == NULL)
        return rc;
    events_scalar *scalars = malloc((said->count + 1) * sizeof *scalars);
    if (scalars == NULL)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < said->count; i++)
        scalars[i] = (events_scalar){said->numbers[i].name, said->numbers[i].value};
    events e = {0};
    events_scalars(&e, said->time, axis(c, said), scalars, said->count);
    free(scalars);
    return write_events(t, c, &e);
}

static void fini(void *self)
{
    struct tensorboard *t = self;
    for (size_t i = 0; i < t->count; i++) {
        free(t->curves[i].phase);
        free(t->curves[i].stage);
        free(t->curves[i].file);
    }
    free(t->curves);
    free(t->folder);
}

static const sluice_metrics_class class = {
    SLUICE_METRICS_CLASS("tensorboard", "writes a run's numbers as TensorBoard event files", struct tensorboard,
                         params),
    .base.doc =
        "metrics = ( { use = \"tensorboard\"; } ); at the top of a pipeline file; then `tensorboard --logdir RUN`. "
        "Event "
        "files lie in PATH/PHASE/STAGE/, one folder a stage, and tags are the names in metrics.jsonl (loss, "
        "rewards/chosen, accuracy, …): so the stages of one kind, a policy's and a control's, are curves of one "
        "chart.\n\n"
        "Steps of training go on over the iterations of a phase. A number of a whole stage stands at its last step of "
        "training, or at the iteration (1, 2, …) where the stage has no steps. What a stage reports reaches its file "
        "while the stage runs, as soon as all stages before it in the plan are done. A run that goes on writes its "
        "files "
        "anew, with what it reuses in them, so that no point stands twice.",
    .base.init = init,
    .base.fini = fini,
    .line = line,
    .folder = set_folder};

SLUICE_PLUGIN("tensorboard", "1", "Apache-2.0", &class.base);
