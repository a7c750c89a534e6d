// Reads texts as npm's dotenv does: a JSON list of them on standard input, a list of objects out.
"use strict";

const fs = require("fs");
const { parse } = require("dotenv");

const texts = JSON.parse(fs.readFileSync(0, "utf8"));
const fast = { fast: true };
process.stdout.write(JSON.stringify(texts.map((text) => [parse(text), parse(text, fast)])));
