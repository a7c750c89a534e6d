// Makes calls with @grpc/grpc-js on one connection, as it is told to on standard input.
// Usage: node calls.js SOCKET
// Each line is a JSON list of calls, made all at once. For each line in, one line comes out: how each
// of these calls has ended. Messages are in base64: they are encoded on the other side.
'use strict';

const readline = require('readline');
const grpc = require('@grpc/grpc-js');

const client = new grpc.Client(`unix:${process.argv[2]}`, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
});
const MAKE = {
  unary_unary: 'makeUnaryRequest',
  unary_stream: 'makeServerStreamRequest',
  stream_unary: 'makeClientStreamRequest',
  stream_stream: 'makeBidiStreamRequest',
};
const same = (bytes) => bytes;

function texts(metadata) {
  const found = Object.entries(metadata.getMap());
  return Object.fromEntries(found.map(([name, text]) => [name, text.toString()]));
}

function ended({ path, kind, requests, timeout, cancel }) {
  return new Promise((resolve) => {
    const [asks, answers] = kind.split('_');
    const messages = requests.map((each) => Buffer.from(each, 'base64'));
    const told = { responses: [], initial: {} };
    const options = timeout === null ? {} : { deadline: Date.now() + timeout * 1000 };
    let call;
    const take = (bytes) => {
      told.responses.push(bytes.toString('base64'));
      if (cancel) call.cancel();
    };
    const parameters = [path, same, same];
    if (asks === 'unary') parameters.push(messages[0]);
    parameters.push(new grpc.Metadata(), options);
    // An error comes as a status as well.
    if (answers === 'unary') parameters.push((error, bytes) => error || take(bytes));
    call = client[MAKE[kind]](...parameters);
    call.on('metadata', (metadata) => {
      told.initial = texts(metadata);
      if (cancel === 'metadata') call.cancel();
    });
    if (answers === 'stream') {
      call.on('data', take);
      call.on('error', () => {});
    }
    const finish = ({ code, details, metadata }) => {
      resolve({ ...told, status: grpc.status[code], message: details, trailing: texts(metadata) });
    };
    call.on('status', (status) => {
      // The last responses may still be on their way to `take`.
      if (answers === 'stream' && !status.code) call.on('end', () => finish(status));
      else finish(status);
    });
    if (asks === 'stream') {
      for (const message of messages) call.write(message);
      call.end();
    }
  });
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const all = await Promise.all(JSON.parse(line).map(ended));
    process.stdout.write(`${JSON.stringify(all)}\n`);
  }
  client.close();
}

main();
