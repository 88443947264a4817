'use strict';
/*
 * A Stellar peer around @stellarbeat/js-stellar-node-connector, driven by JSON lines: commands on
 * stdin ({"do": "dial", ...}), events on stdout ({"event": "authenticated", ...}), troubles on
 * stderr. It ends with its stdin.
 *
 * Environment: NETWORK, PRIVATE_KEY, OVERLAY_VERSION, OVERLAY_MIN_VERSION, LEDGER_VERSION and
 * VERSION_STRING as the package reads them; FORGE_MAC_AT, the sequence number (AUTH has 0) of the
 * message whose MAC leaves with one bit flipped.
 *
 * The package grants credit to the other end by itself (flow-controller.js) but spends without
 * looking at its own: Link keeps that credit, and counts what the other end sends beyond its grant.
 */
const { createHash } = require('node:crypto');
const readline = require('node:readline');
const { hash, xdr } = require('@stellar/stellar-base');
const {
  createNode, createSCPEnvelopeSignature, getConfigFromEnv,
} = require('@stellarbeat/js-stellar-node-connector');
const { isFloodMessage } = require(
  '@stellarbeat/js-stellar-node-connector/lib/connection/is-flood-message');

const FORGE_MAC_AT = process.env.FORGE_MAC_AT ? BigInt(process.env.FORGE_MAC_AT) : null;
const HANDSHAKE = ['HELLO', 'AUTH', 'SEND_MORE', 'SEND_MORE_EXTENDED'];
const quiet = () => {};
const logger = { trace: quiet, debug: quiet, info: quiet, warn: quiet, child: () => logger };
logger.error = (fields, text) => console.error(text, JSON.stringify(fields));

const config = getConfigFromEnv();
const node = createNode(config, logger);
const networkId = hash(Buffer.from(config.network));
const quorumSetHash = hash(new xdr.ScpQuorumSet({
  threshold: 1, validators: [node.keyPair.xdrPublicKey()], innerSets: [],
}).toXDR());

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
}

/** The name of an enum member as Stellar-overlay.x spells it: getScpState is GET_SCP_STATE. */
function nameOf(member) {
  return member.name.replace(/[A-Z]/g, (letter) => '_' + letter).toUpperCase();
}

/** Add what a SEND_MORE_EXTENDED grants to `credit`. */
function addGrant(message, credit) {
  credit.messages += message.sendMoreExtendedMessage().numMessages();
  credit.bytes += message.sendMoreExtendedMessage().numBytes();
}

/** A signed, canonical SCP_MESSAGE; its value has `bytes` bytes and means nothing. */
function scpMessage(kind, slot, index, bytes) {
  const value = Buffer.alloc(Math.max(8, bytes));
  value.writeBigUInt64BE(BigInt(index));
  const pledges = kind === 'nominate'
    ? xdr.ScpStatementPledges.scpStNominate(
      new xdr.ScpNomination({ quorumSetHash, votes: [value], accepted: [] }))
    : xdr.ScpStatementPledges.scpStExternalize(new xdr.ScpStatementExternalize({
      commit: new xdr.ScpBallot({ counter: 1, value }), nH: 1, commitQuorumSetHash: quorumSetHash,
    }));
  const key = node.keyPair;
  const statement = new xdr.ScpStatement({
    nodeId: key.xdrPublicKey(), slotIndex: xdr.Uint64.fromString(String(slot)), pledges,
  });
  const signature = createSCPEnvelopeSignature(
    statement, key.rawPublicKey(), key.rawSecretKey(), networkId)._unsafeUnwrap();
  return xdr.StellarMessage.scpMessage(new xdr.ScpEnvelope({ statement, signature }));
}

/** Messages, bytes (message type included) and the SHA-256 of all bodies one after the other. */
class Tally {
  messages = 0;
  bytes = 0;
  digest = createHash('sha256');

  add(body) {
    this.messages += 1;
    this.bytes += body.length;
    this.digest.update(body);
  }

  report(direction) {
    return {
      [`flood_messages_${direction}`]: this.messages,
      [`flood_bytes_${direction}`]: this.bytes,
      [`flood_sha256_${direction}`]: this.digest.copy().digest('hex'),
    };
  }
}

/** One connection: what the package leaves out, hung on the methods that every message passes. */
class Link {
  constructor(number, role, connection) {
    this.number = number;
    this.connection = connection;
    this.floodIn = new Tally();
    this.floodOut = new Tally();
    this.granted = { messages: 0, bytes: 0 }; // by us, in all
    this.credit = { messages: 0, bytes: 0 }; // by the other end, not yet spent
    this.grantsReceived = 0;
    this.violations = 0;
    this.queue = []; // flood messages waiting for credit
    this.reports = []; // asked for, waiting for their counts
    this.held = null; // while holding: received, not processed, so that no grant follows
    this.reason = null;

    const { handleStellarMessage, _write, getMacForAuthenticatedMessage } = connection;
    connection.handleStellarMessage = (message, size) => {
      this.received(message);
      return handleStellarMessage.call(connection, message, size);
    };
    connection._write = (message, encoding, callback) => {
      if (nameOf(message.switch()) === 'SEND_MORE_EXTENDED') addGrant(message, this.granted);
      return _write.call(connection, message, encoding, callback);
    };
    connection.getMacForAuthenticatedMessage = (message) => {
      const mac = getMacForAuthenticatedMessage.call(connection, message);
      if (nameOf(message.switch()) !== 'HELLO'
          && connection.localSequence.readBigUInt64BE() === FORGE_MAC_AT) {
        mac.mac()[31] ^= 1;
      }
      return mac;
    };
    connection
      .on('connect', (publicKey, info) => this.tell('authenticated', {
        role,
        public_key: publicKey,
        version: info.versionString,
        ledger_version: info.ledgerVersion,
        overlay_version: info.overlayVersion,
        overlay_min_version: info.overlayMinVersion,
      }))
      .on('data', (job) => (this.held ? this.held.push(job) : job.done())) // done: credit returns
      .on('timeout', () => this.end('timeout'))
      .on('error', (error) => { this.reason ??= error.message; })
      .on('end', () => { this.reason ??= 'closed by the other end'; })
      .on('close', () => this.tell('closed', { reason: this.reason ?? '', ...this.counters() }));
  }

  tell(event, fields) {
    tell(event, { link: this.number, ...fields });
  }

  end(reason) {
    this.reason ??= reason;
    this.connection.destroy();
  }

  received(message) {
    const type = nameOf(message.switch());
    const body = message.toXDR(); // js-xdr accepts canonical XDR only: these are the bytes received
    if (isFloodMessage(message.switch())) {
      this.floodIn.add(body);
      const { messages, bytes } = this.granted;
      if (this.floodIn.messages > messages || this.floodIn.bytes > bytes) this.violations += 1;
      this.answerReports();
    } else if (type === 'SEND_MORE_EXTENDED') {
      this.grantsReceived += 1;
      addGrant(message, this.credit);
      this.spendCredit();
    } else if (type === 'ERROR_MSG') {
      const said = message.error();
      this.tell('error_msg', { code: nameOf(said.code()), text: said.msg().toString() });
    } else if (type === 'GET_SCP_QUORUMSET' && !message.qSetHash().equals(quorumSetHash)) {
      this.tell('ping', { hash: message.qSetHash().toString('hex') });
    } else if (!HANDSHAKE.includes(type)) {
      const sha256 = hash(body).toString('hex');
      this.tell('message', { type, sha256, xdr: body.toString('base64') });
    }
  }

  /** Send now, or, for flood messages, as soon as the other end's grants allow. */
  send(message, { beyond_credit: beyondCredit = false } = {}) {
    if (!isFloodMessage(message.switch()) || beyondCredit) return this.write(message);
    this.queue.push(message);
    return this.spendCredit();
  }

  spendCredit() {
    while (this.queue.length > 0) {
      const size = this.queue[0].toXDR().length;
      if (this.credit.messages < 1 || this.credit.bytes < size) break;
      this.credit.messages -= 1;
      this.credit.bytes -= size;
      this.write(this.queue.shift());
    }
  }

  write(message) {
    this.connection.sendStellarMessage(message);
    if (isFloodMessage(message.switch())) {
      this.floodOut.add(message.toXDR());
      this.answerReports();
    }
  }

  counters() {
    return {
      ...this.floodIn.report('in'),
      ...this.floodOut.report('out'),
      queued: this.queue.length,
      grants_received: this.grantsReceived,
      credit_violations: this.violations,
    };
  }

  answerReports() {
    this.reports = this.reports.filter(({ received = 0, sent = 0 }) => {
      if (this.floodIn.messages < received || this.floodOut.messages < sent) return true;
      this.tell('counters', this.counters());
      return false;
    });
  }
}

let link = null; // the newest: commands go there

function opened(role, connection) {
  link = new Link((link?.number ?? 0) + 1, role, connection);
}

const commands = {
  listen: ({ port = 0, host = '127.0.0.1' }) => node.acceptIncomingConnections(port, host),
  dial: ({ host = '127.0.0.1', port }) => opened('initiator', node.connectTo(host, port)),
  scp: ({ count, slot = 1, bytes = 32, kind = 'externalize', ...how }) => {
    for (let i = 0; i < count; i += 1) {
      link.send(scpMessage(kind, kind === 'nominate' ? slot : slot + i, i, bytes), how);
    }
  },
  send: ({ xdr: body, ...how }) => link.send(xdr.StellarMessage.fromXDR(body, 'base64'), how),
  scp_state: ({ ledger = 0 }) => link.send(xdr.StellarMessage.getScpState(ledger)),
  report: (when) => {
    link.reports.push(when);
    link.answerReports();
  },
  hold: () => { link.held ??= []; },
  release: () => {
    const jobs = link.held ?? [];
    link.held = null;
    jobs.forEach((job) => job.done());
  },
  close: () => link.end('closed by command'),
};

node
  .on('connection', (connection) => opened('responder', connection))
  .on('listening', () => tell('listening', { port: node.server.address().port }))
  .on('error', (error) => tell('problem', { text: error.message }));

readline.createInterface({ input: process.stdin })
  .on('line', (line) => {
    try {
      const { do: name, ...fields } = JSON.parse(line);
      commands[name](fields);
    } catch (error) {
      tell('problem', { text: `${line.slice(0, 100)}: ${error.message}` });
    }
  })
  .on('close', () => process.exit());

tell('started', { public_key: node.keyPair.publicKey() });
