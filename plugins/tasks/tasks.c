/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* tasks: a source of short questions with known answers, the embedded world. */
#include <sluice/sluice.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plugins/tasks/kinds.h"
#include "plugins/tasks/world.h"

enum form { FORM_PROMPT = 0, FORM_COMPLETION = 1, FORM_PREFERENCE = 2 };

/* Which of a fixed set of names a list names; one named twice stands there twice. */
enum { MOST_PICKS = 64 };
struct picks {
    int items[MOST_PICKS];
    size_t count;
};

struct tasks {
    int split, form;
    int64_t count, seed;
    double wrong, mistaken;
    bool fresh;
    sluice_strings families, kinds, manners;

    const sluice_host *host;
    struct picks family, kind, manner;
    uint64_t key;
    int64_t next;
    size_t answers, mistakes;
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
                  .doc =
                      "Share of completions that are wrong (form = completion, kind answer), so that a model trained "
                      "on them is imperfect on purpose."),
    SLUICE_DOUBLE(struct tasks, mistaken, .value = 0.5, .min = 0, .max = 1,
                  .doc = "Share of answers shown that are wrong (kinds question, score and again)."),
    SLUICE_BOOL(struct tasks, fresh, .value = 1, .doc = "Other questions in each iteration of the phase."),
    SLUICE_INT(struct tasks, seed, .value = -1, .min = -1,
               .doc = "Which questions are drawn; stages with one seed draw the same. -1 = the run's seed."),
    SLUICE_STRINGS(struct tasks, families,
                   .doc = "Families of questions: add, subtract, larger, reverse, sort, count, copy, letter; one named "
                          "twice comes twice as often, here and below; none given = all."),
    SLUICE_STRINGS(struct tasks, kinds,
                   .doc =
                       "What is asked about a question: answer, question (is this answer right?), score, pairwise (A "
                       "or B?), again (look again), manner; none given = answer."),
    SLUICE_STRINGS(struct tasks, manners,
                   .doc = "Manners that the kind manner asks for: polite, rude, brief, long; none given = all."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"questions", "records", "Questions drawn."},
    {"wrong_completions", NULL, "Share of completions of the kind answer that are wrong (form = completion)."},
    {NULL, NULL, NULL}};

static void list_names(const char *const *names, char *out, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; names[i] && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", names[i]);
}

/* `list` as indices into `names`; an empty one is the first `standard` of them. */
static int pick(struct tasks *t, const char *param, const sluice_strings *list, const char *const *names,
                size_t standard, struct picks *out)
{
    char known[128];
    list_names(names, known, sizeof known);
    if (list->count > MOST_PICKS)
        return sluice_error(t->host, SLUICE_BAD_PARAMETER, "%s: %zu names are too many; give %d at most", param,
                            list->count, MOST_PICKS);
    for (size_t i = 0; i < list->count; i++) {
        int found = 0;
        while (names[found] && strcmp(names[found], list->items[i]) != 0)
            found++;
        if (!names[found])
            return sluice_error(t->host, SLUICE_BAD_PARAMETER, "%s: there is no '%s'; use %s", param, list->items[i],
                                known);
        out->items[out->count++] = found;
    }
    if (out->count == 0)
        for (size_t i = 0; i < standard; i++)
            out->items[out->count++] = (int)i;
    return SLUICE_OK;
}

static int init(void *self, const sluice_host *host)
{
    struct tasks *t = self;
    t->host = host;
    int rc = pick(t, "families", &t->families, world_family_names, WORLD_FAMILIES, &t->family);
    if (rc >= 0)
        rc = pick(t, "kinds", &t->kinds, world_kind_names, 1, &t->kind);
    if (rc >= 0)
        rc = pick(t, "manners", &t->manners, world_manner_names, WORLD_MANNERS, &t->manner);
    uint64_t seed = t->seed < 0 ? sluice_run_seed(host) : (uint64_t)t->seed;
    t->key = sluice_mix(sluice_mix(seed, (uint64_t)t->split + 1), t->fresh ? (uint64_t)sluice_iteration(host) : 0);
    return rc;
}

static int set_prompt(sluice_record *record, const world_task *task)
{
    return task->turns ? sluice_record_set_messages(record, task->messages, task->turns)
                       : sluice_record_set_prompt(record, task->prompt);
}

static int set_text(sluice_record *record, const char *key, const char *text)
{
    return text ? sluice_record_set_meta_text(record, key, text) : SLUICE_OK;
}

static int set_meta(sluice_record *record, const world_task *task)
{
    int rc = set_text(record, "family", world_family_names[task->question.family]);
    if (rc >= 0)
        rc = set_text(record, "answer", task->answer);
    if (rc < 0 || task->kind == WORLD_ANSWER)
        return rc;
    rc = set_text(record, "kind", world_kind_names[task->kind]);
    if (rc >= 0)
        rc = set_text(record, "question", task->question.prompt);
    if (rc >= 0)
        rc = set_text(record, "manner", task->manner);
    if (rc >= 0)
        rc = set_text(record, task->second ? "a" : "shown", task->first);
    if (rc >= 0)
        rc = set_text(record, "b", task->second);
    if (rc >= 0 && task->first && !task->second)
        rc = sluice_record_set_meta_bool(record, "shown_right", task->first_right);
    return rc;
}

static int set_completion(struct tasks *t, world_random *random, const world_task *task, sluice_record *record)
{
    bool wrong = false;
    if (task->kind == WORLD_ANSWER) {
        wrong = world_below(random, 1u << 30) < t->wrong * (1u << 30);
        t->answers++;
        t->mistakes += wrong;
    }
    const sluice_candidate candidate = {.text = wrong ? task->wrong : task->right, .parent = -1};
    int rc = sluice_record_add_candidate(record, &candidate);
    return rc < 0 ? rc : sluice_record_set_meta_bool(record, "right", !wrong);
}

static int set_preference(const world_task *task, sluice_record *record)
{
    const sluice_candidate right = {.text = task->right, .parent = -1}, wrong = {.text = task->wrong, .parent = -1};
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
    world_task task;
    world_random_at(&random, t->key, SLUICE_PURPOSE_DATA, (uint64_t)t->next);
    world_draw(&random, t->family.items, t->family.count, (enum world_split)t->split, &task.question);
    /* No draw where there is nothing to choose: a list of one kind gives the same questions whatever the kind. */
    size_t which = t->kind.count > 1 ? world_below(&random, (uint32_t)t->kind.count) : 0;
    world_ask(&random, (enum world_kind)t->kind.items[which], t->mistaken, t->manner.items, t->manner.count, &task);
    char id[64];
    snprintf(id, sizeof id, "%s-%lld-%lld", world_split_names[t->split],
             (long long)(t->fresh ? sluice_iteration(t->host) : 0), (long long)t->next);
    t->next++;
    int rc = sluice_record_set_id(record, id);
    if (rc >= 0)
        rc = set_prompt(record, &task);
    if (rc >= 0)
        rc = set_meta(record, &task);
    if (rc >= 0 && t->form == FORM_COMPLETION)
        rc = set_completion(t, &random, &task, record);
    if (rc >= 0 && t->form == FORM_PREFERENCE)
        rc = set_preference(&task, record);
    return rc;
}

static int finish(void *self)
{
    struct tasks *t = self;
    sluice_metric(t->host, "questions", (double)t->next);
    if (t->form == FORM_COMPLETION && t->answers)
        sluice_metric(t->host, "wrong_completions", (double)t->mistakes / (double)t->answers);
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
        "Kinds other than answer ask something else about such a question: whether an answer shown is right (\"yes\" "
        "or "
        "\"no\"), its score (\"Score: 5\" or \"Score: 0\"), which of two is right (\"A\" or \"B\"), to look again at a "
        "first answer, or to answer in a manner. `kind`, `question`, `shown` and `shown_right`, `a` and `b`, and "
        "`manner` then stand in meta, `answer` is what the reply should be (for a manner: what it should contain), and "
        "prompts/embedded-question.txt, -score.txt and -pairwise.txt ask a judge in the same words.\n\n"
        "A hash of a question's content - family and operands, not wording - decides its split (six parts in ten "
        "corpus, a quarter train, the rest validation and test), so a question seen in one is in no other, whatever is "
        "asked about it.",
    .base.metrics = metrics,
    .base.init = init,
    .next = next,
    .finish = finish,
};

SLUICE_PLUGIN("tasks", "1.0", "Apache-2.0", &tasks.base);
