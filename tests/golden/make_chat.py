# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Chat templates in the manner of the families that are in use, and small ones for each feature, rendered by jinja2 as
transformers sets it up.

  chat.json                                 templates, conversations, and the text or the refusal of each pair
  tokenizers/{llama3,qwen2}/tokenizer_config.json   names of tokens and a template, for the ids (chat_ids.json)

Run in this folder after make_tokenizer.py, with transformers and jinja2: python make_chat.py
"""
import json
import os

import jinja2
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))

CHATML = """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

LLAMA31 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message + builtin tools #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "You have access to the following functions. To call a function, please respond with JSON for a function call." }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

MISTRAL3 = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- This block checks for alternating user/assistant messages, skipping tool calling messages #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

PHI3 = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"""

TRAINING = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
            {{- message.content ~ '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>%s' is string and '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}"""

FAMILIES = dict(chatml=CHATML, llama2=LLAMA2, llama3=LLAMA3, llama31=LLAMA31, qwen25=QWEN25, qwen3=QWEN3, zephyr=ZEPHYR,
                mistral=MISTRAL, mistral3=MISTRAL3, gemma=GEMMA, gemma3=GEMMA3, phi3=PHI3, smollm2=SMOLLM2,
                deepseek=DEEPSEEK, training=TRAINING)

# One line of output, or a refusal, per feature.
SNIPPETS = r"""
{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -(3) }} {{ (1 + 2) * 3 }}
{{ 'a' ~ 1 ~ true ~ none }} {{ 'a' 'b' }} {{ "it's" }} {{ 'q"' }} {{ '\t|\n|\x41|\u00e9|\\' }}
{{ 1 < 2 }} {{ 'a' < 'b' }} {{ 2 >= 2 }} {{ 1 != 1 }} {{ 1 == true }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'ab' > 'abc' }}
{{ 'b' in 'abc' }} {{ 'x' not in ['x'] }} {{ 'role' in messages[0] }} {{ 2 in (1, 2) }} {{ not 1 in [2] }}
{{ none }} {{ undefined_name }}|{{ undefined_name is defined }} {{ undefined_name is undefined }} {{ none is none }}
{{ undefined_name.attribute }}
{{ messages[0].nothing }}|{{ messages[99] }}|{{ messages[0]['nothing'] is defined }}|{{ messages[0].nothing.more }}
{{ 'x' if true }}|{{ 'x' if false }}|{{ 'x' if false else 'y' }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}
{{ 0 or 'a' }} {{ 1 and 'b' }} {{ '' or none or 'z' }} {{ not '' }} {{ not not 'a' }} {{ true and false or true }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[:-1] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[4:1] }} {{ 'abcdef'[::2] }} {{ 'äöü'[1] }} {{ 'äöü'[-1] }} {{ 'äöü'[1:] }} {{ 'abc'[5:] }}|{{ 'abcdef'[4:0:-2] }}
{{ [1,2,3][1:] | join('-') }} {{ [1,2,3][::-1] | join }} {{ ([1] + [2, 3]) | length }} {{ [] | first is defined }} {{ [1, 2] | last }} {{ 'abc' | first }}
{{ '  x ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ 'hello World' | upper }} {{ 'ÄÖ É' | lower }} {{ 'hELLO wORLD' | capitalize }} {{ "they're bill's" | title }} {{ 'Abc' | length }} {{ 'äöü' | count }}
{{ x | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ '' | d('e', boolean=true) }} {{ none | default('n') }} {{ x | default }}|
{{ 'a-b-a' | replace('a', 'x') }} {{ 'a-b-a'.replace('a', 'xy', 1) }} {{ [1,2] | reverse | list | join(',') }} {{ 'abc' | reverse }}
{{ '12' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ ' -5 ' | int }} {{ 3 | string + 'a' }} {{ true | int }}
{{ '  a b  c '.strip() }}| {{ 'xax'.strip('x') }} {{ '  a '.lstrip() }}| {{ ' a  '.rstrip() }}| {{ 'abcab'.strip('ab') }} {{ '\u3000a\x1c'.strip() }}
{{ 'a,b,,c'.split(',') | join('|') }} {{ ' a  b c '.split() | join('|') }} {{ 'a,b,c'.split(',', 1) | join('|') }} {{ 'a,b,c'.rsplit(',', 1) | join('|') }} {{ ' a b  c d '.split(none, 2) | join('|') }} {{ 'abc'.split('x')[0] }} {{ ''.split(',') | length }} {{ ''.split() | length }}
{{ 'a\nb\r\nc\n'.splitlines() | join('|') }} {{ 'abc'.find('c') }} {{ 'äbc'.find('b') }} {{ 'abc'.find('x') }} {{ 'aXbX'.count('X') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ 'a b'.title() }} {{ 'AB'.capitalize() }} {{ '-'.join(['a', 'b']) }}
{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ x }}{{ loop.length }}{% else %}none{% endfor %}{% for x in [] %}x{% else %}none{% endfor %}{% for x in nothing %}x{% else %}empty{% endfor %}
{% for k, v in {'a': 1, 'b': 'x'}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for c in 'äb' %}{{ c }}.{% endfor %}{% for k, v in {'c': 2} | items %}{{ k }}{{ v }}{% endfor %}
{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}
{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}
{% set x %}a{{ 1 + 1 }}b{% endset %}{{ x | upper }}{{ x is string }}
{% for i in range(3) %}{{ i }}{% endfor %}{{ range(2, 8, 3) | join(',') }} {{ range(3, 0, -1) | list | join(',') }}
{{ 'x' is string }} {{ 1 is number }} {{ 1 is integer }} {{ true is boolean }} {{ true is true }} {{ {} is mapping }} {{ [] is iterable }} {{ 'a' is sequence }} {{ 3 is odd }} {{ 4 is even }} {{ 'a' is eq 'a' }} {{ 'a' is equalto('b') }} {{ 'a' is in ['a'] }} {{ 'a' is not string }} {{ 1 is ne 2 }} {{ true is number }}
{{ {'a': [1, 'ä"\n\t\x01/', none, true], 'b': {}, 'c': []} | tojson }} {{ 'é' | tojson }} {{ messages | tojson }}
{{ {'a': [1, {'b': 2}], 'e': [], 'f': {}} | tojson(indent=2) }}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | list | length }} {{ [1, 0, 2] | select | list | length }} {{ [1, 2, 3] | select('odd') | join(',') }} {{ [1, 2] | reject('equalto', 1) | join }} {{ ['a', 'b'] | map('upper') | join }} {{ messages | join(',', attribute='role') }} {{ messages | selectattr('nothing') | list | length }}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 'c') }} {{ {'a': 1}.keys() | join }} {{ {'a': 1}.values() | join }} {{ {'a': 1, 'a': 2}['a'] }} {{ {'a': {'b': 'c'}}.a.b }} {{ {'x': 1} == {'x': 1} }} {{ [1, [2]] == [1, [2]] }} {{ {} | length }}
  {% if true %}  a  {% endif %}  |  {%- if true -%}  b  {%- endif -%}  |  {%+ if true %} c {%+ endif %} |
{# comment #}a{#- comment -#}  b {# c
d #}
{{- ' a ' -}}   x   {{- ' b ' -}}
{{ raise_exception('no: ' ~ 3) }}
{{ 1 // 0 }}
{{ 'a' + 1 }}
{{ [1] + 'a' }}
{{ 1 < 'a' }}
{{ none + 'a' }}
{{ {'a': {'}}': 1}}['a'] | length }} {{ "%}" }} {{ '{{' }}
{{ messages[0].content | safe | length > 0 }} {{ (1, 2) | length }} {{ () | length }} {{ [1, 2,] | length }}
{{ add_generation_prompt }} {{ tools is none }} {{ documents is defined }} {{ bos_token }}{{ eos_token }} {{ pad_token is defined }}
{{ -1 | string }} {{ 2 - -1 }} {{ [-1][0] }} {{ 'a' ~ 1 + 2 }}
""".strip("\n").split("\n")
# These go over several lines.
SNIPPETS = [s for s in SNIPPETS if s != "d #}"]
SNIPPETS = [s + "\nd #}" if s.endswith("{# c") else s for s in SNIPPETS]
SNIPPETS += ["a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}\n  b\n  {% endif %}  \nc\n\n", "  {{ 1 }}\n  {{ 2 }}  \n",
             "{% if true %}\n\n\nx{% endif %}\n\n", "x  {% set a = 1 %}\n  y", "\n\n  {#- c #}\n  z\r\nw\rv\n", "", "\n", "{{ 1 }}\n",
             "  {#- c -#}  \n  {% if true -%}\n  a\n  {%- endif +%}\n  b", "{%- set a -%} x {%- endset %}{{ a }}|"]

CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "What is 2 + 2?")],
    [("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Tell me a joke.")],
    [("system", " You are \n kind. \n"), ("user", "  leading and trailing \n\n"), ("assistant", "\n ok \t"), ("user", "été 🙂 한국어 ")],
    [("user", "Think."), ("assistant", "<think>\nLet me see.\n</think>\n\nFour."), ("user", "Again"), ("assistant", "<think>Hm</think>Five")],
    [("user", "")],
    [("assistant", "I begin.")],
    [("user", "a"), ("user", "b")],
    [("user", "q"), ("tool", "{\"x\": 1}"), ("assistant", "done"), ("system", "late")],
    [("user", "line\r\nbreaks\rand \"quotes\" 'single' {{ braces }} {% tag %} \\n")],
    [],
]


def messages(conversation):
    return [dict(role=role, content=content) for role, content in conversation]


def render(template, conversation, answer):
    compiled = _compile_jinja_template(template)
    compiled.environment.globals.pop("strftime_now", None)  # texts must not depend on the clock
    compiled.globals.pop("strftime_now", None)
    try:
        return dict(text=compiled.render(messages=messages(conversation), tools=None, documents=None,
                                         add_generation_prompt=answer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"))
    except jinja2.exceptions.TemplateError as e:
        return dict(refusal=str(e))
    except (TypeError, ZeroDivisionError) as e:
        return dict(refusal="")


def main():
    out = dict(conversations=[messages(c) for c in CONVERSATIONS], families={}, snippets=[])
    for name, template in FAMILIES.items():
        out["families"][name] = dict(template=template, results=[[render(template, c, False), render(template, c, True)]
                                                                 for c in CONVERSATIONS])
    for template in SNIPPETS:
        out["snippets"].append(dict(template=template, result=render(template, CONVERSATIONS[1], True)))
    with open(f"{HERE}/chat.json", "w", encoding="utf-8") as f:
        json.dump(out, f, ensure_ascii=False, indent=1)

    ids = {}
    for name, template, bos, eos in [("llama3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
                                     ("qwen2", CHATML, None, "<|im_end|>")]:
        folder = f"{HERE}/tokenizers/{name}"
        config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=bos, eos_token=eos,
                      chat_template=[dict(name="tool_use", template="{{ x }}"), dict(name="default", template=template)])
        with open(f"{folder}/tokenizer_config.json", "w", encoding="utf-8") as f:
            json.dump(config, f, ensure_ascii=False, indent=1)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids[name] = [tokenizer.apply_chat_template(messages(c), tokenize=True, add_generation_prompt=True,
                                                   return_dict=False, chat_template=template) for c in CONVERSATIONS[:-1]]
    with open(f"{HERE}/chat_ids.json", "w", encoding="utf-8") as f:
        json.dump(ids, f)


if __name__ == "__main__":
    main()
