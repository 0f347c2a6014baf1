/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The file, and what it says of itself. */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/run/internal.h"
#include "tools/test-plugin/test.h"

/* ---- loads */

/* Seconds that dlopen takes in a process that has nothing loaded yet; negative when it fails there. */
static double load_time(const char *file)
{
    int ends[2];
    double seconds = -1;
    if (pipe(ends) < 0)
        return -1;
    const pid_t child = fork();
    if (child == 0) {
        const double start = sl_clock();
        void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        const double took = handle != NULL ? sl_clock() - start : -1;
        _exit(write(ends[1], &took, sizeof took) == (ssize_t)sizeof took ? 0 : 1);
    }
    close(ends[1]);
    if (child > 0 && read(ends[0], &seconds, sizeof seconds) != (ssize_t)sizeof seconds)
        seconds = -1;
    close(ends[0]);
    if (child > 0)
        waitpid(child, NULL, 0);
    return seconds;
}

/* The best of several: a cold disk or a busy machine is not the plugin's fault. */
static void loads(tp_subject *s, tp_report *r)
{
    enum { LIMIT_MS = 100, TRIES = 8 };
    double best = INFINITY;
    for (int i = 0; i < TRIES && best > LIMIT_MS / 1e3; i++) {
        const double took = load_time(s->file);
        best = took >= 0 && took < best ? took : best;
    }
    tp_doing(r, "loading it");
    void *handle = dlopen(s->file, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        tp_fail(r, "cannot be loaded: %s", dlerror());
    else if (best > LIMIT_MS / 1e3)
        tp_fail(r, "loading takes %.0f ms, more than %d: leave work to init", best * 1e3, LIMIT_MS);
    if (handle != NULL)
        dlclose(handle);
}

const tp_test tp_test_loads = {"loads", "dlopen with RTLD_NOW succeeds, within 100 ms", TP_FILE, 0, loads};

/* ---- symbols: by the file alone, as constructors would have run by now otherwise */

typedef struct image {
    const uint8_t *bytes;
    size_t size;
} image;

static const void *part(const image *m, uint64_t offset, uint64_t size)
{
    return offset <= m->size && size <= m->size - offset ? m->bytes + offset : NULL;
}

/* Names that linkers and compilers put there themselves. */
static bool linkers_own(const char *name)
{
    static const char *const own[] = {"_init", "_fini", "_edata", "_end", "_bss_start", "_start"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(name, own[i]) == 0)
            return true;
    return strncmp(name, "__", 2) == 0;
}

static void look_at(const image *m, const ElfW(Shdr) * table, const ElfW(Shdr) * strings, tp_report *r)
{
    const char *names = part(m, strings->sh_offset, strings->sh_size);
    bool entry = false;
    if (names == NULL || table->sh_entsize != sizeof(ElfW(Sym)) || strings->sh_size == 0)
        return;
    for (uint64_t at = 0; at + sizeof(ElfW(Sym)) <= table->sh_size; at += sizeof(ElfW(Sym))) {
        ElfW(Sym) symbol;
        const void *from = part(m, table->sh_offset + at, sizeof symbol);
        if (from == NULL)
            return;
        memcpy(&symbol, from, sizeof symbol);
        if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= strings->sh_size ||
            ELF64_ST_BIND(symbol.st_info) == STB_LOCAL)
            continue;
        const char *name = names + symbol.st_name;
        if (strcmp(name, SLUICE_ENTRY) == 0)
            entry = true;
        else if (!linkers_own(name))
            tp_fail(r, "exports '%.80s' besides " SLUICE_ENTRY ": make it static, or compile with -fvisibility=hidden",
                    name);
    }
    if (!entry)
        tp_fail(r, "exports no " SLUICE_ENTRY ": end its source with SLUICE_PLUGIN(…)");
}

static void symbols(tp_subject *s, tp_report *r)
{
    struct stat st;
    ElfW(Ehdr) head;
    const int fd = open(s->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof head) {
        tp_fail(r, "cannot be read");
        return;
    }
    const image m = {mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0), (size_t)st.st_size};
    close(fd);
    memcpy(&head, m.bytes, sizeof head);
    const ElfW(Shdr) *sections = part(&m, head.e_shoff, (uint64_t)head.e_shnum * sizeof *sections);
    if (sections == NULL || head.e_shnum == 0)
        tp_skip(r, "it has no section headers");
    for (size_t i = 0; sections != NULL && i < head.e_shnum; i++)
        if (sections[i].sh_type == SHT_DYNSYM && sections[i].sh_link < head.e_shnum)
            look_at(&m, &sections[i], &sections[sections[i].sh_link], r);
    munmap((void *)(uintptr_t)m.bytes, m.size);
}

const tp_test tp_test_symbols = {"symbols", "one symbol is exported", TP_FILE, 0, symbols};

/* ---- description */

static bool is_sentence(const char *text)
{
    const size_t length = text != NULL ? strlen(text) : 0;
    return length > 1 && strchr(".!?)\"", text[length - 1]) != NULL && strchr(text, '\n') == NULL;
}

static void describe_param(const sluice_class *c, const sluice_param *p, tp_report *r)
{
    if (p->doc == NULL || p->doc[0] == '\0')
        tp_fail(r, "class '%s': parameter '%s' has no .doc", c->id, p->name);
    else if (!is_sentence(p->doc))
        tp_warn(r, "class '%s': the .doc of '%s' is not a sentence on one line", c->id, p->name);
    if (p->type == SLUICE_TYPE_CHOICE)
        for (size_t i = 0; p->choices[i] != NULL; i++)
            for (size_t j = 0; j < i; j++)
                if (strcmp(p->choices[i], p->choices[j]) == 0)
                    tp_fail(r, "class '%s': '%s' has the choice '%s' twice", c->id, p->name, p->choices[i]);
    if (p->required && p->text != NULL)
        tp_warn(r, "class '%s': '%s' is required, so its default is never used", c->id, p->name);
}

static void describe_metrics(const sluice_class *c, tp_report *r)
{
    for (size_t i = 0; c->metrics != NULL && c->metrics[i].name != NULL; i++) {
        if (c->metrics[i].doc == NULL || c->metrics[i].doc[0] == '\0')
            tp_fail(r, "class '%s': metric '%s' has no doc", c->id, c->metrics[i].name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(c->metrics[i].name, c->metrics[j].name) == 0)
                tp_fail(r, "class '%s': metric '%s' is described twice", c->id, c->metrics[i].name);
    }
}

static void description(tp_subject *s, tp_report *r)
{
    char why[512];
    const uint32_t fields = (SLUICE_FIELD_META << 1) - 1, traits = (SLUICE_USES_CUDA << 1) - 1;
    if (!tp_subject_open(s, s->file, why, sizeof why)) {
        tp_fail(r, "%s", why);
        return;
    }
    if (s->plugin->license[0] == '\0' || s->plugin->version[0] == '\0' || s->plugin->id[0] == '\0')
        tp_fail(r, "its id, version or licence is empty: see SLUICE_PLUGIN");
    for (size_t i = 0; i < s->class_count; i++) {
        const sluice_class *c = s->classes[i];
        for (size_t j = 0; j < i; j++)
            if (strcmp(s->classes[j]->id, c->id) == 0)
                tp_fail(r, "class '%s' is there twice", c->id);
        if (c->summary[0] == '\0' || strchr(c->summary, '\n') != NULL || c->summary[strlen(c->summary) - 1] == '.')
            tp_fail(r, "class '%s': the summary is one line without a full stop", c->id);
        if (c->doc == NULL || c->doc[0] == '\0')
            tp_warn(r, "class '%s' has no .doc: say method, paper and deviations", c->id);
        if ((c->reads | c->adds) & ~fields)
            tp_fail(r, "class '%s': reads or adds has a bit that is no sluice_fields", c->id);
        if (c->traits & ~traits)
            tp_fail(r, "class '%s': traits has a bit that is no sluice_traits", c->id);
        for (size_t p = 0; p < sl_class_params(c); p++)
            describe_param(c, sl_class_param(c, p), r);
        describe_metrics(c, r);
    }
}

const tp_test tp_test_description = {"description", "docs, ids, parameters and metrics are complete and consistent",
                                     TP_FILE, 0, description};

/* ---- registry */

bool tp_copy_plugin(const tp_subject *s)
{
    sl_buffer bytes = {0};
    char error[SL_ERROR_SIZE];
    const bool copied = mkdir("found", 0700) == 0 && sl_file_read(s->file, &bytes) >= 0 &&
                        sl_file_write("found/plugin.so", bytes.data, bytes.size, error) >= 0;
    sl_buffer_free(&bytes);
    return copied;
}

/* Does the file lie in the folder of sluice's own plugins? */
static bool is_own(const sl_registry *own, const char *file)
{
    const char *const *folders;
    char folder[PATH_MAX], path[PATH_MAX];
    const char *slash = realpath(file, path) != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL && sl_registry_folders(own, &folders) == 1 && realpath(folders[0], folder) != NULL &&
           strncmp(folder, path, (size_t)(slash - path)) == 0 && folder[slash - path] == '\0';
}

/* Ids without a vendor's name are sluice's own, and those that are taken are taken. */
static void see_ids(const tp_subject *s, tp_report *r)
{
    sl_registry *own = sl_registry_open_own();
    if (own == NULL || !sl_registry_load(own, s->file)) {
        tp_skip(r, "out of memory");
        sl_registry_close(own);
        return;
    }
    for (size_t i = 0; i < s->class_count; i++) {
        const char *id = s->classes[i]->id, *vendor = strchr(id, '/');
        const sl_registered *found = sl_registry_find(own, id);
        if (sl_registry_conflict(own, id) != NULL)
            tp_fail(r, "sluice itself has a class '%s', in %s; call yours \"vendor/%s\"", id,
                    found != NULL ? found->file : "another plugin", vendor != NULL ? vendor + 1 : id);
        else if (vendor == NULL && found != NULL && strcmp(found->file, s->file) == 0 && !is_own(own, s->file))
            tp_fail(r,
                    "'%s' has no vendor's name before it, as sluice's own ids alone have none; call it \"vendor/%s\"",
                    id, id);
    }
    sl_registry_close(own);
}

static void registry(tp_subject *s, tp_report *r)
{
    see_ids(s, r);
    char folder[PATH_MAX];
    const char *const folders[] = {folder};
    const sl_refused *refused;
    if (getcwd(folder, sizeof folder - 8) == NULL)
        return;
    strcat(folder, "/found");
    if (!tp_copy_plugin(s)) {
        tp_skip(r, "cannot copy it: %s", strerror(errno));
        return;
    }
    sl_registry *found = sl_registry_open_folders(folders, 1);
    if (found == NULL) {
        tp_skip(r, "out of memory");
        return;
    }
    if (sl_registry_refused(found, &refused) > 0)
        tp_fail(r, "sluice refuses it: %s", refused[0].why);
    for (size_t i = 0; i < s->class_count; i++)
        if (sl_registry_find(found, s->classes[i]->id) == NULL)
            tp_fail(r, "sluice does not find its class '%s'", s->classes[i]->id);
    if (sl_registry_find(found, "no-vendor/no-class") != NULL || sl_registry_find(found, "") != NULL)
        tp_fail(r, "an id that it does not have is found in it");
    sl_registry_close(found);
}

const tp_test tp_test_registry = {"registry", "sluice takes it, finds its classes, and no others", TP_PLUGIN, 0,
                                  registry};
