// Generates the manifest's sample of each package that is named, with Transformers.js, from its folder and without a network.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, Tensor, env } from "@huggingface/transformers";

const DTYPES = { fp32: "fp32", fp16: "fp16", int8: "q8", int4: "q4", "int4-mixed": "q4" };
env.allowRemoteModels = false;

for (const folder of process.argv.slice(2)) {
  env.localModelPath = dirname(folder);
  const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf-8"));
  const { prompt, tokens } = manifest.sample;
  const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
  const model = await AutoModelForCausalLM.from_pretrained(basename(folder), { dtype: DTYPES[manifest.profile.precision] });
  const shape = [1, prompt.length];
  const output = await model.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(prompt.map(BigInt)), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(prompt.length).fill(1n), shape),
    max_new_tokens: tokens.length,
    do_sample: false,
    eos_token_id: -1,
  });
  const found = Array.from(output.data).map(Number);
  const chat = tokenizer.apply_chat_template([{ role: "user", content: "Ada?" }], { tokenize: false, add_generation_prompt: true });
  const text = tokenizer.decode(tokenizer.encode("Ada visits Zürich."));
  console.log(JSON.stringify({ package: basename(folder), tokens: found.slice(prompt.length), chat, text }));
}
