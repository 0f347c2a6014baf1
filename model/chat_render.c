/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements. What a loop's body sets is gone with the iteration, as in jinja2; what must last stands in a namespace.
 */
#include "model/chat_parts.h"

/* How a body ended. */
typedef enum ending { TO_THE_END, BROKEN, CONTINUED } ending;

static ending render(chat_run *run, const chat_statement *body, chat_scope *scope, chat_builder *out);

static void set(chat_run *run, const chat_statement *s, chat_scope *scope, chat_value value)
{
    if (!s->attribute.length) {
        chat_dict_set(run, &scope->variables, s->text, value);
        return;
    }
    for (; scope; scope = scope->outer) {
        chat_value *space = chat_dict_find(&scope->variables, s->text);
        if (space && space->kind == CHAT_NAMESPACE) {
            chat_dict_set(run, space->dict, s->attribute, value);
            return;
        }
        if (space) {
            break;
        }
    }
    chat_fail(run, s->line, SM_FORMAT, "\"%.*s\" is not a namespace, so its attributes cannot be set",
              (int)s->text.length, s->text.bytes);
}

static void bind(chat_run *run, const chat_statement *s, chat_scope *scope, chat_value item)
{
    scope->variables = (chat_dict){0};
    if (s->target_count == 1) {
        chat_dict_set(run, &scope->variables, s->targets[0], item);
    } else if (item.kind == CHAT_LIST && item.list->count == 2) {
        chat_dict_set(run, &scope->variables, s->targets[0], item.list->items[0]);
        chat_dict_set(run, &scope->variables, s->targets[1], item.list->items[1]);
    } else {
        chat_fail(run, s->line, SM_FORMAT, "a loop with two variables goes over %s", chat_kind_name(item));
    }
}

/* The items that the loop's own condition lets through. */
static chat_list *filtered(chat_run *run, const chat_statement *s, chat_scope *outer, chat_list *items)
{
    chat_value kept = chat_new_list(run, items->count);
    if (run->failed) {
        return items;
    }
    kept.list->count = 0;
    for (size_t i = 0; i < items->count && !run->failed; i++) {
        chat_scope scope = {.outer = outer};
        bind(run, s, &scope, items->items[i]);
        if (chat_truth(chat_eval(run, s->filter, &scope))) {
            kept.list->items[kept.list->count++] = items->items[i];
        }
    }
    return kept.list;
}

static ending render_for(chat_run *run, const chat_statement *s, chat_scope *outer, chat_builder *out)
{
    chat_value value = chat_items(run, s->line, chat_eval(run, s->expression, outer));
    if (run->failed) {
        return TO_THE_END;
    }
    chat_list *items = s->filter ? filtered(run, s, outer, value.list) : value.list;
    for (size_t i = 0; i < items->count && !run->failed; i++) {
        chat_loop *loop = chat_alloc(run, sizeof *loop);
        chat_scope scope = {.outer = outer};
        if (!loop) {
            break;
        }
        *loop = (chat_loop){items, i};
        bind(run, s, &scope, items->items[i]);
        chat_dict_set(run, &scope.variables, chat_literal("loop"), (chat_value){.kind = CHAT_LOOP, .loop = loop});
        if (render(run, s->body, &scope, out) == BROKEN) {
            break;
        }
    }
    return items->count ? TO_THE_END : render(run, s->other, outer, out);
}

/* The body of the first condition that holds, or what stands behind else. Long chains of elif take no stack. */
static const chat_statement *chosen_branch(chat_run *run, const chat_statement *s, chat_scope *scope)
{
    while (!chat_truth(chat_eval(run, s->expression, scope))) {
        if (!s->other || s->other->kind != CHAT_IF || s->other->next || run->failed) {
            return s->other;
        }
        s = s->other;
    }
    return s->body;
}

static ending render(chat_run *run, const chat_statement *s, chat_scope *scope, chat_builder *out)
{
    ending end = TO_THE_END;
    for (; s && !run->failed && end == TO_THE_END; s = s->next) {
        if (++run->steps > CHAT_MAX_STEPS) {
            chat_fail(run, s->line, SM_UNSUPPORTED, "the chat template takes more than %d steps", CHAT_MAX_STEPS);
        }
        switch (s->kind) {
        case CHAT_DATA:
            chat_put(run, out, s->text);
            break;
        case CHAT_PRINT:
            chat_put(run, out, chat_to_text(run, s->line, chat_eval(run, s->expression, scope)));
            break;
        case CHAT_IF:
            end = render(run, chosen_branch(run, s, scope), scope, out);
            break;
        case CHAT_FOR:
            end = render_for(run, s, scope, out);
            break;
        case CHAT_SET:
            set(run, s, scope, chat_eval(run, s->expression, scope));
            break;
        case CHAT_SET_BLOCK: {
            chat_scope inner = {.outer = scope};
            chat_builder text = {0};
            end = render(run, s->body, &inner, &text);
            set(run, s, scope, chat_text(chat_built(&text)));
            break;
        }
        case CHAT_SCOPE: {
            chat_scope inner = {.outer = scope};
            end = render(run, s->body, &inner, out);
            break;
        }
        case CHAT_BREAK:
            return BROKEN;
        case CHAT_CONTINUE:
            return CONTINUED;
        }
    }
    return end;
}

void chat_render_body(chat_run *run, const chat_statement *body, chat_scope *scope, chat_builder *out)
{
    render(run, body, scope, out);
}
