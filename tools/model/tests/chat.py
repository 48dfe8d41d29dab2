#!/usr/bin/env python3
"""Makes chat.json: dialogues by chat templates of the kinds that models have, rendered by Jinja as transformers sets it
up. Made with transformers 5.24.0 and Jinja2 3.1.6.

    pip install transformers==5.24.0 jinja2==3.1.6
    tools/model/tests/chat.py
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a"
    " helpful AI assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message ="
    " messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message +"
    " '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = \"26 Jul 2024\" %}\n{%- endif %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n"
    "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n"
    "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n"
    "{{- system_message }}\n{{- \"<|eot_id|>\" }}\n{%- for message in messages %}\n"
    "    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n"
    "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n"
    "    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim +"
    " '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"].split("</think>")[-1].lstrip("\\n") + eos_token }}
    {%- endif %}
{%- endfor %}
"""
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
{% endfor %}
"""
MACRO = """{% macro turn(role, text) -%}
<{{ role.upper() }}>{{ text.replace("  ", " ") }}</{{ role[0] }}>
{%- endmacro %}
{% for m in messages %}
    {%- if m.content.startswith("/") %}{% continue %}{% endif %}
{{ turn(m.role, m.content) }}{{ m.content | tojson }}
{% endfor %}
{{ "=" * 3 ~ messages | length }}{{ messages | map(attribute="role") | join(",") }}{% if not tools %}-{% endif %}
"""
TEMPLATES = dict(chatml=CHATML, llama_2=LLAMA_2, llama_3=LLAMA_3, gemma=GEMMA, mistral=MISTRAL, zephyr=ZEPHYR, macro=MACRO)
USER, REPLY, SYSTEM = ("user", "What is  a bundle?\n"), ("assistant", " Weights. "), ("system", "Be brief.")
DIALOGUES = [
    [USER],
    [SYSTEM, USER],
    [USER, REPLY, ("user", "<b>Thanks & \"bye\" é 🙂</b>")],
    [SYSTEM, USER, REPLY, ("user", "/more")],
    [USER, USER],
]

cases = []
for name, template in TEMPLATES.items():
    for messages in DIALOGUES:
        case = dict(name=name, template=template, bos_token="<s>", eos_token="</s>", messages=messages, text=None, told=None)
        said = [dict(role=role, content=content) for role, content in messages]
        try:
            case["text"] = _compile_jinja_template(template).render(
                messages=said, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
        except Exception as error:
            case["told"] = str(error)
        cases.append(case)
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, indent=1) + "\n")
