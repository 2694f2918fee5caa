// @template category=api
// @template tags=websocket,chat
// @template description=A chat room for each address: everybody hears everybody. Save it as rooms/[room].ts.
// @template params=
// @description Rooms to talk in
// @mode worker
// @websocket
const room = metadata.parameters.room;
ws.message = (socket, data) => ws.broadcast(JSON.stringify({ room, text: String(data) }));
if (metadata.method === "WEBSOCKET_INIT") return;
return { room, sockets: ws.connections.size };
