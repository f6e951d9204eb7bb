export { Controller, Delete, Get, Guard, Patch, Post, Put, controllerRoutes } from './controller.decorator';
export { RateLimit } from './rateLimit.decorator';
