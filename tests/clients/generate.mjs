// Generates the manifest's sample of each package that is named, with Transformers.js, from its folder and without a network.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, Tensor, env } from "@huggingface/transformers";
import { answer } from "./sample.mjs";

const DTYPES = { fp32: "fp32", fp16: "fp16", int8: "q8", int4: "q4", "int4-mixed": "q4" };
env.allowRemoteModels = false;

for (const folder of process.argv.slice(2)) {
  env.localModelPath = dirname(folder);
  const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf-8"));
  const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
  const model = await AutoModelForCausalLM.from_pretrained(basename(folder), { dtype: DTYPES[manifest.profile.precision] });
  const found = await answer(model, Tensor, manifest.sample);
  const chat = tokenizer.apply_chat_template([{ role: "user", content: "Ada?" }], { tokenize: false, add_generation_prompt: true });
  const text = tokenizer.decode(tokenizer.encode("Ada visits Zürich."));
  console.log(JSON.stringify({ package: basename(folder), tokens: found, chat, text }));
}
