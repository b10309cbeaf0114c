"""Prints answers of many models with the calls that mlx-lm's parsers read in them: what `tool_calls.rs` compares with.

    .mlx-lm/bin/python tests/mlx_lm/tool_calls.py
"""

import importlib
import json

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "tags": {"type": "array"},
                    "depth": {"type": ["number", "null"]},
                },
            },
        },
    }
]

ANSWERS = {
    "json_tools": [
        '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Oslo", "days": 3}}\n</tool_call>',
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
    ],
    "qwen3_coder": [
        "<tool_call>\n<function=get_weather>\n<parameter=place>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        "<tool_call>\n<function=get_weather>\n<parameter=place>\n7\n</parameter>\n<parameter=exact>\ntrue\n</parameter>\n"
        "<parameter=tags>\n[\"a\", \"b\"]\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=get_weather>\n<parameter=place>\ntwo\nlines\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=other>\n<parameter=x>\n3\n</parameter>\n</function>\n</tool_call>",
    ],
    "minimax_m2": [
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="place">Oslo</parameter>\n'
        '<parameter name="days">3</parameter>\n<parameter name="depth">2.5</parameter>\n</invoke>\n</minimax:tool_call>',
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="days">1</parameter>\n</invoke>\n'
        '<invoke name="get_weather">\n<parameter name="exact">false</parameter>\n</invoke>\n</minimax:tool_call>',
    ],
    "minicpm5": [
        '<function name="get_weather"><param name="place"><![CDATA[a < b]]></param><param name="days">3</param></function>',
    ],
    "muse_spark": [
        '<atem:function_calls><atem:invoke name="get_weather"><atem:parameter name="place">"Oslo"</atem:parameter>'
        '<atem:parameter name="days">3</atem:parameter></atem:invoke></atem:function_calls>',
    ],
    "glm47": [
        "<tool_call>get_weather\n<arg_key>place</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n<arg_key>tags</arg_key>\n<arg_value>['a', 1]</arg_value>\n</tool_call>",
        "<tool_call>get_weather<arg_key>place</arg_key><arg_value>7</arg_value></tool_call>",
    ],
    "longcat": [
        "<longcat_tool_call>get_weather\n<longcat_arg_key>place</longcat_arg_key>\n<longcat_arg_value>Oslo"
        "</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n"
        "</longcat_tool_call>",
    ],
    "mistral": [
        '[TOOL_CALLS]get_weather[ARGS]{"place": "Oslo", "days": 3}',
        '[TOOL_CALLS]get_weather[ARGS]{"days": 1}get_weather[ARGS]{"days": 2}',
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"place": "Oslo"}}]',
        '[TOOL_CALLS][{"name": "get_weather", "arguments": "{\\"place\\": \\"Oslo\\"}"}]',
    ],
    "pythonic": [
        '<|tool_call_start|>[get_weather(place="Oslo", days=3)]<|tool_call_end|>',
        "<|tool_call_start|>[get_weather(place='it\\'s', exact=True), get_weather(tags=[1, 'b'])]<|tool_call_end|>",
        '<|tool_call_start|>[a.b(x={"k": true, "n": null})]<|tool_call_end|>',
        "<|tool_call_start|>[get_weather()]<|tool_call_end|>",
    ],
    "gemma4": [
        '<|tool_call>call:get_weather{place:<|"|>Oslo, {Norway}<|"|>,days:3,exact:true}<tool_call|>',
        '<|tool_call>call:get_weather{tags:[<|"|>a<|"|>,<|"|>b<|"|>],days:-1}<tool_call|>',
    ],
    "function_gemma": [
        "<start_function_call>call:get_weather{place:<escape>Oslo<escape>,days:3}<end_function_call>",
    ],
    "kimi_k2": [
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"place": "Oslo", "days": 3}<|tool_call_end|><|tool_call_begin|>functions.other:1<|tool_call_argument_begin|>'
        "{}<|tool_call_end|><|tool_calls_section_end|>",
    ],
    "kimi_k3": [
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="place" type="string"'
        '<|sep|>Oslo<|close|>argument<|sep|><|open|>argument key="days" type="integer"<|sep|>3<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|>",
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>json type="object"<|sep|>'
        '{"place": "Oslo"}<|close|>json<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    ],
}


def read(parser, answer):
    """Returns the calls that mlx-lm reads; its server cuts the parser's marks off first."""
    _, _, rest = answer.partition(parser.tool_call_start)
    text = rest.partition(parser.tool_call_end)[0] if parser.tool_call_end else rest
    if parser.__name__.endswith("qwen3_coder"):
        text = text.strip()
    calls = parser.parse_tool_call(text, TOOLS)
    calls = calls if isinstance(calls, list) else [calls]
    return [{"name": call["name"], "arguments": call["arguments"]} for call in calls]


def main():
    found = []
    for name, answers in ANSWERS.items():
        parser = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
        found += [{"format": name, "answer": answer, "calls": read(parser, answer)} for answer in answers]
    print(json.dumps({"tools": TOOLS, "found": found}))


if __name__ == "__main__":
    main()
