"""The chat template of every tokenizer that we train, as Jinja text: one for training and serving.

ChatML with the conventions of Qwen2.5 and Qwen3 for tools and thinking, in our own words:

    <|im_start|>system\\n...<|im_end|>\\n
    <|im_start|>user\\n...<|im_end|>\\n
    <|im_start|>assistant\\n<think>\\n...\\n</think>\\n\\n...<|im_end|>\\n

- `tools` (JSON schemas) are listed in the system turn; a call is `<tool_call>\\n{"name":,
  "arguments":}\\n</tool_call>`; results (role `tool`) are a user turn of `<tool_response>` blocks,
  neighbours joined.
- `reasoning_content` becomes a `<think>` block, empty text included; without the field there is no
  block. Content that opens with `<think>` is taken apart the same way. `enable_thinking=false`
  closes an empty block in the generation prompt; otherwise the model decides.
- Reasoning of earlier turns stays (Qwen3 drops it): so each prompt is an exact prefix of the
  conversation that follows it, which the loss on every turn and the KV cache of a chat both rest
  on. Leave `reasoning_content` out of old messages to drop it.
- Blank lines at the start of a reply are cut: a newline there would become one token with the newline
  after `assistant`, and the prompt would not be a prefix of the conversation any more. The
  indentation of its first line stays.
- `{% generation %}` marks what the model itself writes: each assistant turn's text and its
  `<|im_end|>`.
"""

CHAT_TEMPLATE = r"""
{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content -%}
        {%- for part in content -%}{{- part.text -}}{%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set has_system = messages[0].role == 'system' -%}
{%- if tools -%}
    {{- '<|im_start|>system\n' -}}
    {%- if has_system -%}{{- text_of(messages[0].content) + '\n\n' -}}{%- endif -%}
    {{- '# 工具\n\n可以调用下列函数，每行是一个函数的 JSON 说明：\n<tools>' -}}
    {%- for tool in tools -%}{{- '\n' + (tool | tojson) -}}{%- endfor -%}
    {{- '\n</tools>\n\n需要调用时，把函数名和参数写成 JSON，放在标签里：\n' -}}
    {{- '<tool_call>\n{"name": 函数名, "arguments": {参数名: 值}}\n</tool_call><|im_end|>\n' -}}
{%- elif has_system -%}
    {{- '<|im_start|>system\n' + text_of(messages[0].content) + '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set text = text_of(message.content) -%}
    {%- if message.role == 'system' and loop.first -%}
    {%- elif message.role in ('system', 'user') -%}
        {{- '<|im_start|>' + message.role + '\n' + text + '<|im_end|>\n' -}}
    {%- elif message.role == 'tool' -%}
        {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
        {{- '\n<tool_response>\n' + text + '\n</tool_response>' -}}
        {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\n' -}}{%- endif -%}
    {%- elif message.role == 'assistant' -%}
        {%- set reasoning = none -%}
        {%- if message.reasoning_content is string -%}
            {%- set reasoning = message.reasoning_content -%}
        {%- elif text.lstrip().startswith('<think>') and '</think>' in text -%}
            {%- set reasoning = text.split('</think>')[0].lstrip()[7:] -%}
            {%- set text = text.split('</think>')[1:] | join('</think>') -%}
        {%- endif -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- generation -%}
        {%- if reasoning is not none -%}{{- '<think>\n' + reasoning.strip() + '\n</think>\n\n' -}}{%- endif -%}
        {%- set body = text.lstrip() -%}
        {%- set lead = text[:(text | length) - (body | length)] | replace('\r', '\n') -%}
        {{- lead.split('\n')[-1] + body if body else '' -}}
        {%- for call in message.tool_calls or [] -%}
            {%- set function = call.function or call -%}
            {%- if text.strip() or not loop.first -%}{{- '\n' -}}{%- endif -%}
            {{- '<tool_call>\n{"name": ' + (function.name | tojson) + ', "arguments": ' -}}
            {{- function.arguments if function.arguments is string else (function.arguments | tojson) -}}
            {{- '}\n</tool_call>' -}}
        {%- endfor -%}
        {{- '<|im_end|>' -}}
        {%- endgeneration -%}
        {{- '\n' -}}
    {%- else -%}
        {{- raise_exception('role ' + (message.role | string | tojson) + ' is none of system, user, assistant, tool') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
""".strip()  # noqa: E501 (its bytes are part of every checkpoint)
