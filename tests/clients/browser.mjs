// Opens page.html in headless Chromium for each package that is named, and prints what the page answers. No network but this server.
import { createServer } from "node:http";
import { createReadStream, statSync } from "node:fs";
import { basename, dirname, extname, join, normalize, resolve } from "node:path";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const packages = process.argv.slice(2).map((folder) => resolve(folder));
const roots = { modules: resolve("node_modules"), packages: dirname(packages[0]) };
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

const server = createServer((request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const [, first, ...rest] = path.split("/");
  const own = ["page.html", "sample.mjs"].includes(first);
  const file = own ? resolve(first) : first in roots && join(roots[first], normalize(rest.join("/")));
  try {
    if (!file || !statSync(file).isFile()) throw new Error("no file");
    response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Content-Length": statSync(file).size });
    createReadStream(file).pipe(response);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const browser = await puppeteer
  .launch({
    executablePath: process.env.COLBUILD_CHROMIUM ?? (await chromium.executablePath()),
    args: [...chromium.args, "--no-proxy-server"],
    headless: "shell",
    protocolTimeout: 240_000,
  })
  .catch((error) => {
    // A machine may lack libraries that it needs.
    console.error(`no browser: ${error.message}`);
    process.exit(1);
  });
try {
  console.error(await browser.version());
  for (const folder of packages) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(String(error)));
    await page.goto(`http://127.0.0.1:${server.address().port}/page.html?package=${basename(folder)}`);
    const found = await page.evaluate(() => window.done);
    const shown = await page.$eval("#answer", (element) => element.textContent);
    console.log(JSON.stringify({ package: basename(folder), ...found, shown }));
    await page.close();
  }
} finally {
  await browser.close();
  server.close();
}
