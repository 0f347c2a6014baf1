/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* tasks: a source of short questions with known answers, the embedded world. */
#include <sluice/sluice.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plugins/tasks/world.h"

enum form { FORM_PROMPT = 0, FORM_COMPLETION = 1, FORM_PREFERENCE = 2 };

struct tasks {
    int split, form;
    int64_t count, seed;
    double wrong;
    bool fresh;
    sluice_strings families;

    const sluice_host *host;
    int family[WORLD_FAMILIES];
    size_t family_count;
    uint64_t key;
    int64_t next;
    size_t mistakes;
};

static const char *const forms[] = {"prompt", "completion", "preference", NULL};
static const uint32_t form_adds[] = {0, SLUICE_FIELD_CANDIDATES, SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS};

static const sluice_param params[] = {
    SLUICE_CHOICE(
        struct tasks, split, .choices = world_split_names, .value = WORLD_TRAIN,
        .doc = "Which questions: those of the base model's corpus, of preference training, to choose settings on, or "
               "to report on; no question is in two of them."),
    SLUICE_INT(struct tasks, count, .value = 512, .min = 1, .unit = "records", .doc = "How many questions."),
    SLUICE_CHOICE(
        struct tasks, form, .choices = forms, .choice_adds = form_adds, .value = FORM_PROMPT,
        .doc = "The question alone, with a completion to learn from, or with the right answer chosen over a mistake."),
    SLUICE_DOUBLE(struct tasks, wrong, .value = 0, .min = 0, .max = 1,
                  .doc = "Share of completions that are wrong (form = completion), so that a model trained on them is "
                         "imperfect on purpose."),
    SLUICE_BOOL(struct tasks, fresh, .value = 1, .doc = "Other questions in each iteration of the phase."),
    SLUICE_INT(struct tasks, seed, .value = -1, .min = -1,
               .doc = "Which questions are drawn; stages with one seed draw the same. -1 = the run's seed."),
    SLUICE_STRINGS(
        struct tasks, families,
        .doc = "Families of questions: add, subtract, larger, reverse, sort, count, copy, letter; none given = all."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"questions", "records", "Questions drawn."},
    {"wrong_completions", NULL, "Share of completions that are wrong (form = completion)."},
    {NULL, NULL, NULL}};

static int find_family(const char *name)
{
    for (int f = 0; f < WORLD_FAMILIES; f++)
        if (strcmp(world_family_names[f], name) == 0)
            return f;
    return -1;
}

static int init(void *self, const sluice_host *host)
{
    struct tasks *t = self;
    t->host = host;
    for (size_t i = 0; i < t->families.count; i++) {
        int f = find_family(t->families.items[i]);
        if (f < 0)
            return sluice_error(
                host, SLUICE_BAD_PARAMETER,
                "families: there is no family '%s'; use add, subtract, larger, reverse, sort, count, copy, letter",
                t->families.items[i]);
        for (size_t j = 0; j < t->family_count; j++)
            if (t->family[j] == f)
                return sluice_error(host, SLUICE_BAD_PARAMETER, "families: '%s' is named twice; name it once",
                                    t->families.items[i]);
        t->family[t->family_count++] = f;
    }
    if (t->family_count == 0)
        for (int f = 0; f < WORLD_FAMILIES; f++)
            t->family[t->family_count++] = f;
    uint64_t seed = t->seed < 0 ? sluice_run_seed(host) : (uint64_t)t->seed;
    t->key = sluice_mix(sluice_mix(seed, (uint64_t)t->split + 1), t->fresh ? (uint64_t)sluice_iteration(host) : 0);
    return SLUICE_OK;
}

static int set_completion(struct tasks *t, world_random *random, const world_question *q, sluice_record *record)
{
    bool wrong = world_below(random, 1u << 30) < t->wrong * (1u << 30);
    t->mistakes += wrong;
    const sluice_candidate candidate = {.text = wrong ? q->wrong : q->answer, .parent = -1};
    int rc = sluice_record_add_candidate(record, &candidate);
    return rc < 0 ? rc : sluice_record_set_meta_bool(record, "right", !wrong);
}

static int set_preference(const world_question *q, sluice_record *record)
{
    const sluice_candidate right = {.text = q->answer, .parent = -1}, wrong = {.text = q->wrong, .parent = -1};
    const sluice_pair pair = {.chosen = 0, .rejected = 1, .p = 1, .weight = 1, .margin = NAN};
    int rc = sluice_record_add_candidate(record, &right);
    if (rc >= 0)
        rc = sluice_record_add_candidate(record, &wrong);
    return rc < 0 ? rc : sluice_record_add_pair(record, &pair);
}

static int next(void *self, sluice_record *record)
{
    struct tasks *t = self;
    if (t->next == t->count)
        return SLUICE_END;
    world_random random;
    world_question q;
    world_random_at(&random, t->key, SLUICE_PURPOSE_DATA, (uint64_t)t->next);
    world_draw(&random, t->family, t->family_count, (enum world_split)t->split, &q);
    char id[64];
    snprintf(id, sizeof id, "%s-%lld-%lld", world_split_names[t->split],
             (long long)(t->fresh ? sluice_iteration(t->host) : 0), (long long)t->next);
    t->next++;
    int rc = sluice_record_set_id(record, id);
    if (rc >= 0)
        rc = sluice_record_set_prompt(record, q.prompt);
    if (rc >= 0)
        rc = sluice_record_set_meta_text(record, "family", world_family_names[q.family]);
    if (rc >= 0)
        rc = sluice_record_set_meta_text(record, "answer", q.answer);
    if (rc >= 0 && t->form == FORM_COMPLETION)
        rc = set_completion(t, &random, &q, record);
    if (rc >= 0 && t->form == FORM_PREFERENCE)
        rc = set_preference(&q, record);
    return rc;
}

static int finish(void *self)
{
    struct tasks *t = self;
    sluice_metric(t->host, "questions", (double)t->next);
    if (t->form == FORM_COMPLETION)
        sluice_metric(t->host, "wrong_completions", (double)t->mistakes / (double)t->next);
    return SLUICE_OK;
}

static const sluice_stage_class tasks = {
    SLUICE_STAGE_CLASS(SLUICE_SOURCE, "tasks", "Short questions with answers that a program can check", struct tasks,
                       params),
    .base.adds = SLUICE_FIELD_PROMPT | SLUICE_FIELD_META,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "Sums and differences, comparing, reversing and sorting letters, counting and copying, each worded in several "
        "ways. The right answer stands in the meta field `answer`, the family in `family`; with form = completion "
        "candidate 0 is the completion and `right` says whether it is.\n\n"
        "A hash of a question's content - family and operands, not wording - decides its split (six parts in ten "
        "corpus, "
        "a quarter train, the rest validation and test), so a question seen in one is in no other.",
    .base.metrics = metrics,
    .base.init = init,
    .next = next,
    .finish = finish,
};

SLUICE_PLUGIN("tasks", "1.0", "Apache-2.0", &tasks.base);
