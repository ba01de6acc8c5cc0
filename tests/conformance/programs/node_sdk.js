// Drives Twilio's SDK for Node as told: one JSON command a line on standard input, one JSON answer a line on standard
// output. The commands are described in tests/conformance/sdk.py; names come as Python writes them.
"use strict";
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");

const twilio = createRequire(path.join(__dirname, "..", "node", "package.json"))("twilio");

const camel = (name) => name.replace(/_$/, "").replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
const snake = (name) => name.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase());

// The SDK's own HTTP client, with headers of the program's.
class HeaderClient extends twilio.RequestClient {
  constructor(extra) {
    super();
    this.extra = extra;
  }

  request(options) {
    return super.request({ ...options, headers: { ...options.headers, ...this.extra } });
  }
}

const clients = new Map();

function clientFor(login, headers) {
  const key = JSON.stringify([login, headers]);
  if (!clients.has(key)) {
    const options = { accountSid: login.account_sid || undefined };
    if (Object.keys(headers).length) options.httpClient = new HeaderClient(headers);
    clients.set(key, twilio(login.username, login.password, options));
  }
  return clients.get(key);
}

function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (value && typeof value === "object") {
    const date = value.$datetime || value.$date;
    return date ? new Date(date) : value;
  }
  return value;
}

const parameters = (kwargs) => Object.fromEntries(Object.entries(kwargs).map(([name, value]) => [camel(name), revive(value)]));

function show(value) {
  if (value instanceof Date) return value.toISOString().replace(/\.\d+Z$/, "Z");
  if (Array.isArray(value)) return value.map(show);
  if (value && typeof value.toJSON === "function") {
    return Object.fromEntries(Object.entries(value.toJSON()).map(([name, item]) => [snake(name), show(item)]));
  }
  return value;
}

async function pages(target, options) {
  const found = [];
  let page = await target.page(options);
  while (page) {
    found.push(page.instances.map(show));
    page = await page.nextPage();
  }
  return found;
}

function stream(target, options) {
  const found = [];
  return new Promise((resolve, reject) => {
    const done = (error) => (error ? reject(error) : resolve(found));
    target.each({ ...options, done }, (item) => found.push(show(item)));
  });
}

async function request(target, [method, uri]) {
  const answer = await target.request({ method, uri });
  const body = typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body);
  return { status: answer.statusCode, body, headers: { ...answer.headers } };
}

async function run(command) {
  let target = clientFor(command.login, command.headers);
  for (const [name, args] of command.path) {
    const next = target[camel(name)];
    target = args === null ? next : next.apply(target, args);
  }
  const options = parameters(command.kwargs);
  if (command.verb === "stream") return stream(target, options);
  if (command.verb === "pages") return pages(target, options);
  if (command.verb === "request") return request(target, command.args);
  const given = [...command.args, ...(Object.keys(options).length ? [options] : [])];
  const verb = command.verb === "delete" ? "remove" : camel(command.verb);
  return show(await target[verb](...given));
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answer;
    try {
      answer = { result: await run(JSON.parse(line)) };
    } catch (error) {
      const { status, code, message, details } = error;
      answer = status === undefined ? { broken: error.stack } : { error: { status, code, message, details } };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}

main();
