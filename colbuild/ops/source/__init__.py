"""The parts of the source step: from a GGUF file or a Hugging Face folder to plain safetensors and one form of tokenizer.

Each file does one conversion: weights, tokenizer, added tokens, chat template, where texts begin.
They may import `colbuild.weights`, `colbuild.arch` and what is below; of other steps nothing.
"""
