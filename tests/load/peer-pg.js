// What a small team writes instead: express, sns-validator and pg; a transaction a message, 200 after its COMMIT.
//   npm install express@4 sns-validator pg, then: CERT=pem DATABASE_URL=postgres://... PORT=n node peer-pg.js
const fs = require('fs'), https = require('https'), { EventEmitter } = require('events');
const pem = fs.readFileSync(process.env.CERT);
https.get = (url, done) => {                                    // the certificate comes from a file, and nothing else is stubbed
  const response = Object.assign(new EventEmitter(), { statusCode: 200 });
  process.nextTick(() => { done(response); response.emit('data', pem); response.emit('end'); });
  return new EventEmitter();
};
const express = require('express'), Validator = require('sns-validator'), { Pool } = require('pg');
const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 20 }), validator = new Validator(), app = express();
const table = `create table if not exists peer_bounces(id text primary key, email text, bounced_at timestamptz, type text, subtype text, mail jsonb);
  create index if not exists peer_be on peer_bounces(email);
  create table if not exists peer_complaints(id text primary key, email text, complained_at timestamptz, type text, mail jsonb);
  create index if not exists peer_ce on peer_complaints(email);
  create table if not exists peer_suppressions(email text primary key, reason text, at timestamptz);`;

async function store(event) {
  const client = await pool.connect();
  try {
    await client.query('begin');
    const suppress = (email, reason, at) => client.query({ name: 's', text: 'insert into peer_suppressions values($1,$2,$3) on conflict do nothing', values: [email, reason, at] });
    for (const { emailAddress } of event.bounce?.bouncedRecipients ?? []) {
      await client.query({ name: 'b', text: 'insert into peer_bounces values($1,$2,$3,$4,$5,$6) on conflict do nothing',
        values: [event.bounce.feedbackId + emailAddress, emailAddress, event.bounce.timestamp, event.bounce.bounceType, event.bounce.bounceSubType, event.mail] });
      if (event.bounce.bounceType === 'Permanent') await suppress(emailAddress, 'bounce', event.bounce.timestamp);
    }
    for (const { emailAddress } of event.complaint?.complainedRecipients ?? []) {
      await client.query({ name: 'c', text: 'insert into peer_complaints values($1,$2,$3,$4,$5) on conflict do nothing',
        values: [event.complaint.feedbackId + emailAddress, emailAddress, event.complaint.timestamp, event.complaint.complaintFeedbackType, event.mail] });
      await suppress(emailAddress, 'complaint', event.complaint.timestamp);
    }
    await client.query('commit');
  } catch (e) { await client.query('rollback'); throw e; } finally { client.release(); }
}
app.use('/sns', express.text({ type: '*/*', limit: '1mb' }));
app.post('/sns', (req, res) => validator.validate(JSON.parse(req.body), (err, message) => err ? res.status(403).end(String(err))
  : store(JSON.parse(message.Message)).then(() => res.status(200).end(), e => res.status(503).end(String(e)))));
pool.query(table).then(() => app.listen(+process.env.PORT, '127.0.0.1'));
