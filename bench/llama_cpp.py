#!/usr/bin/env python3
"""Measures how fast llama.cpp answers a prompt on the CPU, and prints a line of JSON.

This calls llama.cpp's C functions as its own llama-bench does: the prompt in one batch, logits for its last token, then
token by token through the cache, with threads that stay for the whole run. The addon of node-llama-cpp, beside which the
binary comes, starts its threads again for each token; on two cores that halves the speed of decoding.

    .llama-cpp/python/bin/python bench/llama_cpp.py MODEL.gguf PROMPT MAX_TOKENS THREADS

PROMPT is token ids with commas between, or how many to make up. The answer has MAX_TOKENS tokens, whatever they are: none
ends it. Each is the most likely one. The first comes with the prompt: `decode` is the speed of the others, with the choice
of the token, `decode_alone` without. A short answer comes first and is not timed. Needs scripts/llama-cpp/setup.sh.
"""

import ctypes
import json
import platform
import sys
import time
from ctypes import POINTER, byref, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy

REPOSITORY = Path(__file__).resolve().parent.parent
WARM_UP_TOKENS = 4
WORDS = 1000
CPU_DEVICE = 0
LOG_ERROR = 4
RELEASE = "v0.5.0"  # whose llama.h has the structures below
Log = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("flags", c_bool * 6),
    ]


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("types", c_int * 5),
        ("rope", c_float * 6),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("flags", c_bool * 6),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    ]


class ThreadpoolParams(ctypes.Structure):
    _fields_ = [
        ("cpumask", c_bool * 512),
        ("n_threads", c_int),
        ("prio", c_int),
        ("poll", c_uint32),
        ("strict_cpu", c_bool),
        ("paused", c_bool),
    ]


# By library: what a function returns, and what it takes.
FUNCTIONS = {
    "ggml-base": {
        "ggml_backend_dev_backend_reg": (c_void_p, [c_void_p]),
        "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
        "ggml_threadpool_params_default": (ThreadpoolParams, [c_int]),
    },
    "ggml": {
        "ggml_backend_dev_by_type": (c_void_p, [c_int]),
        "ggml_backend_load_all_from_path": (None, [c_char_p]),
    },
    "llama": {
        "llama_attach_threadpool": (None, [c_void_p, c_void_p, c_void_p]),
        "llama_backend_init": (None, []),
        "llama_batch_get_one": (Batch, [POINTER(c_int32), c_int32]),
        "llama_context_default_params": (ContextParams, []),
        "llama_decode": (c_int32, [c_void_p, Batch]),
        "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
        "llama_get_memory": (c_void_p, [c_void_p]),
        "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
        "llama_log_set": (None, [Log, c_void_p]),
        "llama_memory_clear": (None, [c_void_p, c_bool]),
        "llama_model_default_params": (ModelParams, []),
        "llama_model_get_vocab": (c_void_p, [c_void_p]),
        "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
        "llama_n_threads": (c_int32, [c_void_p]),
        "llama_print_system_info": (c_char_p, []),
        "llama_synchronize": (None, [c_void_p]),
        "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    },
}


@Log
def log(level, text, _):
    if level == LOG_ERROR:
        sys.stderr.write(text.decode(errors="replace"))


class Llama:
    """llama.cpp, with the build of its arithmetic that suits this CPU best."""

    def __init__(self):
        machine = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}[platform.machine()]
        package = REPOSITORY / ".llama-cpp" / "node_modules" / "@node-llama-cpp" / machine
        folder = package / "bins" / machine
        for name, functions in FUNCTIONS.items():
            # The addon names the release in the file name, too.
            path = next(path for path in folder.iterdir() if path.name.split(".")[0] == f"lib{name}")
            library = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            for function, (result, arguments) in functions.items():
                found = getattr(library, function)
                found.restype, found.argtypes = result, arguments
                setattr(self, function.removeprefix("llama_"), found)
        about = json.loads((folder / "_nlcBuildMetadata.json").read_text())
        self.release = about["buildOptions"]["llamaCpp"]["release"]
        if self.release != RELEASE:
            sys.exit(f"llama.cpp is {self.release}: compare its llama.h with the structures here")
        self.log_set(log, None)
        self.ggml_backend_load_all_from_path(bytes(folder))
        self.backend_init()

    def threadpool(self, threads):
        """Returns threads that stay, with the defaults of llama-bench."""
        cpu = self.ggml_backend_dev_backend_reg(self.ggml_backend_dev_by_type(CPU_DEVICE))
        address = self.ggml_backend_reg_get_proc_address(cpu, b"ggml_threadpool_new")
        new = ctypes.CFUNCTYPE(c_void_p, POINTER(ThreadpoolParams))(address)
        return new(byref(self.ggml_threadpool_params_default(threads)))


class Model:
    """A loaded model, and the cache of one conversation."""

    def __init__(self, llama, path, tokens, threads):
        self.llama = llama
        params = llama.model_default_params()
        params.n_gpu_layers = 0
        model = llama.model_load_from_file(bytes(path), params)
        if not model:
            sys.exit(f"{path} cannot be loaded")
        params = llama.context_default_params()
        params.n_ctx, params.n_batch = tokens, max(tokens, params.n_batch)
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.init_from_model(model, params)
        if not self.context:
            sys.exit("the context cannot be made")
        llama.attach_threadpool(self.context, llama.threadpool(threads), None)
        self.vocabulary = llama.vocab_n_tokens(llama.model_get_vocab(model))

    def clear(self):
        self.llama.memory_clear(self.llama.get_memory(self.context), True)

    def evaluate(self, tokens):
        """Appends tokens to the cache and returns the seconds it took."""
        array = (c_int32 * len(tokens))(*tokens)
        batch = self.llama.batch_get_one(array, len(tokens))
        start = time.perf_counter()
        if self.llama.decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")
        self.llama.synchronize(self.context)
        return time.perf_counter() - start

    def logits(self):
        """Returns the logits of the last token, until the next are made."""
        return numpy.ctypeslib.as_array(self.llama.get_logits_ith(self.context, -1), (self.vocabulary,))

    def answer(self, prompt, max_tokens):
        """Returns the tokens, and the seconds for the prompt, for the others, and for the others without the choice."""
        self.clear()
        prefill = self.evaluate(prompt)
        tokens, alone, start = [int(self.logits().argmax())], 0.0, time.perf_counter()
        while len(tokens) < max_tokens:
            alone += self.evaluate(tokens[-1:])
            tokens.append(int(self.logits().argmax()))
        return tokens, prefill, time.perf_counter() - start, alone


def prompt_tokens(text):
    if "," in text:
        return [int(token) for token in text.split(",")]
    return [1 + place * 7919 % WORDS for place in range(int(text))]


def memory(field):
    """Returns a size in bytes that Linux has of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def main():
    path, prompt, max_tokens, threads = sys.argv[1:]
    prompt, max_tokens = prompt_tokens(prompt), int(max_tokens)
    llama = Llama()
    start_rss, start = memory("VmRSS"), time.perf_counter()
    model = Model(llama, Path(path), len(prompt) + max_tokens, int(threads))
    load = time.perf_counter() - start
    model.answer(prompt, min(WARM_UP_TOKENS, max_tokens))
    tokens, prefill, decode, alone = model.answer(prompt, max_tokens)
    found = {
        "prompt_tokens": len(prompt),
        "tokens": tokens,
        "prefill": len(prompt) / prefill,
        "decode": (max_tokens - 1) / decode,
        "decode_alone": (max_tokens - 1) / alone,
        "threads": llama.n_threads(model.context),
        "load_seconds": load,
        "start_rss_bytes": start_rss,
        "peak_rss_bytes": memory("VmHWM"),
        "release": llama.release,
        "system": llama.print_system_info().decode().strip(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
