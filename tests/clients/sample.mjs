// The likeliest tokens after a manifest's sample prompt, by a model of Transformers.js; in Node and in a page.
export async function answer(model, Tensor, { prompt, tokens }) {
  const shape = [1, prompt.length];
  const output = await model.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(prompt.map(BigInt)), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(prompt.length).fill(1n), shape),
    max_new_tokens: tokens.length,
    do_sample: false,
    eos_token_id: -1,
  });
  return Array.from(output.data).map(Number).slice(prompt.length);
}
