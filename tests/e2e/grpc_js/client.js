// Lists and gets keys with @grpc/grpc-js and the .proto files alone.
// Usage: node client.js PROTO_DIRECTORY SOCKET NAME...
// Prints one line of JSON: the names listed, the values in base64, and how a refusal looks.
'use strict';

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [protos, socket, ...names] = process.argv.slice(2);
const files = ['keys', 'leases'].map((name) => `backpack_proto/v1/${name}.proto`);
const definition = loader.loadSync(files, { includeDirs: [protos], keepCase: true, longs: Number });
const api = grpc.loadPackageDefinition(definition).backpack.v1;
const credentials = grpc.credentials.createInsecure();
const keys = new api.Keys(`unix:${socket}`, credentials);
const leases = new api.Leases(`unix:${socket}`, credentials);

function list() {
  return new Promise((resolve, reject) => {
    const found = [];
    const call = keys.ListKeys({});
    call.on('data', (batch) => found.push(...batch.keys.map((key) => key.name)));
    call.on('end', () => resolve(found));
    call.on('error', reject);
  });
}

function get(wanted) {
  return new Promise((resolve, reject) => {
    leases.GetKeys({ names: wanted }, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

async function main() {
  const listed = await list();
  const response = await get(names);
  const values = response.keys.map((key) => key.value.toString('base64'));
  const refused = await get(['SOMETHING_ELSE']).catch((error) => ({
    code: grpc.status[error.code],
    reason: error.metadata.get('backpack-reason')[0],
  }));
  process.stdout.write(JSON.stringify({ listed, values, lease: response.lease.id, refused }) + '\n');
}

main().catch((error) => {
  process.stderr.write(`${error}\n`);
  process.exitCode = 1;
});
