// @template category=api
// @template tags=webhook,hmac
// @template description=Takes a webhook whose body is signed with HMAC SHA-256; the secret is in the environment.
// @template params=secretVariable
// @description Takes signed webhooks
import { createHmac, timingSafeEqual } from "node:crypto";

const secret = process.env.{{secretVariable}};
if (!secret) return res.status(500).json({ error: "{{secretVariable}} is not set" });
const sent = String(req.headers["x-hub-signature-256"] ?? "");
const due = "sha256=" + createHmac("sha256", secret).update(req.rawBody ?? Buffer.alloc(0)).digest("hex");
const same = sent.length === due.length && timingSafeEqual(Buffer.from(sent), Buffer.from(due));
if (!same) return res.status(401).json({ error: "the signature does not fit" });
console.log("webhook", req.headers["x-github-event"] ?? "");
return { accepted: true };
