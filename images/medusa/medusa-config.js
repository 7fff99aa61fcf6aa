// One image serves every store: whatever differs between two stores comes from the environment.
// `medusa build` loads this file too, without any of it, so presence is checked by bin/store.js before a run.
const { defineConfig, Modules } = require("@medusajs/framework/utils")

const env = process.env
const redisUrl = env.REDIS_URL
const publicUrl = (env.PUBLIC_URL || "http://localhost:9000").replace(/\/+$/, "")

module.exports = defineConfig({
  projectConfig: {
    databaseUrl: env.DATABASE_URL,
    redisUrl,
    workerMode: env.MEDUSA_WORKER_MODE || "shared",
    http: {
      storeCors: publicUrl,
      adminCors: publicUrl,
      authCors: publicUrl,
      jwtSecret: env.JWT_SECRET,
      cookieSecret: env.COOKIE_SECRET,
    },
    // In production Medusa marks the session cookie Secure, and a browser then drops it on plain http: the admin's
    // log-in would fail without a word. The scheme the shop is reached by decides.
    cookieOptions: { secure: publicUrl.startsWith("https://"), sameSite: "lax" },
  },
  admin: {
    disable: env.DISABLE_MEDUSA_ADMIN === "true",
  },
  modules: {
    [Modules.EVENT_BUS]: { resolve: "@medusajs/medusa/event-bus-redis", options: { redisUrl } },
    [Modules.WORKFLOW_ENGINE]: { resolve: "@medusajs/medusa/workflow-engine-redis", options: { redis: { redisUrl } } },
    [Modules.LOCKING]: {
      resolve: "@medusajs/medusa/locking",
      options: {
        providers: [{ id: "locking-redis", resolve: "@medusajs/medusa/locking-redis", is_default: true, options: { redisUrl } }],
      },
    },
    [Modules.CACHING]: {
      resolve: "@medusajs/medusa/caching",
      options: {
        providers: [{ id: "caching-redis", resolve: "@medusajs/medusa/caching-redis", is_default: true, options: { redisUrl } }],
      },
    },
    [Modules.FILE]: {
      resolve: "@medusajs/medusa/file",
      options: {
        providers: [
          { id: "local", resolve: "@medusajs/medusa/file-local", options: { upload_dir: "static", backend_url: `${publicUrl}/static` } },
        ],
      },
    },
  },
})
