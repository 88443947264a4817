'use strict';
/*
 * The npm package @stellarbeat/js-stellar-node-connector as a receiver, in the place of our node:
 * it accepts whoever dials, takes every message, and answers {"do": "figures"} with its CPU time.
 * The package itself is where tests/interop has it: INTEROP names that directory.
 */
const { createRequire } = require('node:module');
const path = require('node:path');
const readline = require('node:readline');
const {
  createNode, getConfigFromEnv,
} = createRequire(path.join(process.env.INTEROP, 'package.json'))(
  '@stellarbeat/js-stellar-node-connector');

const quiet = () => {};
const logger = { trace: quiet, debug: quiet, info: quiet, warn: quiet, child: () => logger };
logger.error = (fields, text) => console.error(text, JSON.stringify(fields));

let messages = 0;
let reads = 0;

function tell(figures) {
  process.stdout.write(JSON.stringify(figures) + '\n');
}

const node = createNode(getConfigFromEnv(), logger);
node
  .on('connection', (connection) => {
    connection.socket.on('readable', () => { reads += 1; });
    connection
      .on('data', (job) => {
        messages += 1;
        job.done(); // its credit returns
      })
      .on('error', (error) => console.error(error.message))
      .on('timeout', () => connection.destroy());
  })
  .on('listening', () => tell({ port: node.server.address().port }));
node.acceptIncomingConnections(0, '127.0.0.1');

readline.createInterface({ input: process.stdin })
  .on('line', () => {
    const { user, system } = process.cpuUsage();
    tell({ cpu: (user + system) / 1e6, messages, reads });
  })
  .on('close', () => process.exit());
