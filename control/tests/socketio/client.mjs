// Listens with the usual client of Socket.IO and prints a line for each thing that it hears.
// node client.mjs URL TOKEN TRANSPORTS; TRANSPORTS is `polling`, `websocket` or `polling,websocket`.
import { createRequire } from 'node:module';

const require = createRequire(process.env.SOCKETIO_MODULES + '/');
const { io } = require('socket.io-client');
const [url, token, transports] = process.argv.slice(2);

const socket = io(url, {
  path: '/api/v1/events',
  auth: { token },
  transports: transports.split(','),
  reconnection: false,
});
const say = (what, more) => console.log(JSON.stringify({ what, ...more }));
socket.on('connect', () => {
  say('connect', { transport: socket.io.engine.transport.name });
  socket.io.engine.on('upgrade', (transport) => say('upgrade', { transport: transport.name }));
});
socket.on('message', (message) => say('message', { message }));
socket.on('connect_error', (error) => {
  say('connect_error', { message: error.message, data: error.data });
  process.exit(0);
});
socket.on('disconnect', (reason) => {
  say('disconnect', { reason });
  process.exit(0);
});
