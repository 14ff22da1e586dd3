// Generates with llama.cpp, through its bindings for Node: FILE.gguf THREADS TOKENS PROMPT; prints tokens a second as JSON.
import { getLlama } from "node-llama-cpp";

const [, , file, threads, wanted, prompt] = process.argv;
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: Number(threads) });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ contextSize: 512, threads: Number(threads) });
let tokens = 0;
let started = 0;
for await (const _ of context.getSequence().evaluate(model.tokenize(prompt), { temperature: 0, yieldEogToken: true })) {
  // The first token comes with the prompt.
  if (tokens === 0) started = performance.now();
  if (++tokens > Number(wanted)) break;
}
console.log(JSON.stringify({ tokens_per_second: (tokens - 1) / ((performance.now() - started) / 1000) }));
await llama.dispose();
