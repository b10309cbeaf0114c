"""Make `expected.txt` in the folders of `tests/golden/chat/`: prompts as transformers renders them.

Each folder holds a chat template as a model folder does (`chat_template.jinja`, or the
`chat_template` of `tokenizer_config.json`) and `request.json`, the messages and tools to render.

    pip install transformers==5.23.0 jinja2==3.1.6
    python tests/golden/chat.py
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

ROOT = Path(__file__).parent / "chat"


def read_json(path):
    return json.loads(path.read_text()) if path.exists() else {}


def chat_template(folder, config, tools):
    """The choice that `PreTrainedTokenizerBase.get_chat_template` makes."""
    beside = folder / "chat_template.jinja"
    if beside.exists():
        return beside.read_text()
    template = config["chat_template"]
    if isinstance(template, str):
        return template
    named = {entry["name"]: entry["template"] for entry in template}
    return named["tool_use"] if tools is not None and "tool_use" in named else named["default"]


def special_tokens(config):
    tokens = {key: value for key, value in config.items() if key.endswith("_token") and value}
    return {k: v["content"] if isinstance(v, dict) else v for k, v in tokens.items()}


def main():
    for folder in sorted(path for path in ROOT.iterdir() if path.is_dir()):
        config = read_json(folder / "tokenizer_config.json")
        request = read_json(folder / "request.json")
        rendered, _ = render_jinja_template(
            conversations=[request["messages"]],
            tools=request.get("tools"),
            chat_template=chat_template(folder, config, request.get("tools")),
            add_generation_prompt=True,
            **special_tokens(config),
        )
        (folder / "expected.txt").write_text(rendered[0])


if __name__ == "__main__":
    main()
